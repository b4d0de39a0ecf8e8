/* Every key of the configuration file, as X-macros. One line is one key; the parser, SHOW CONFIG,
 * SET and docs/configuration.md are made from these tables.
 *
 * CONFIG_KEYS(X): section [pgtrickle] or [pgbouncer].
 *     X(kind, name, default, when, help)
 *     kind: STRING, INT, BOOL, TIME (seconds in the file, microseconds in field name_us),
 *           or an enumeration (POOL_MODE, AUTH_TYPE, SSLMODE, SHUTDOWN_MODE, OCTAL is an int in
 * octal). when: RELOAD can change while running, BOOT is read at start only.
 * CONFIG_DATABASE_KEYS(X), CONFIG_USER_KEYS(X), CONFIG_PEER_KEYS(X): the words of a connection
 *     string.  X(kind, name, help). Numbers and times that are not given are -1, strings NULL.
 */
#ifndef PGTRICKLE_PROXY_CONFIG_KEYS_H
#define PGTRICKLE_PROXY_CONFIG_KEYS_H

/* clang-format off */
#define CONFIG_KEYS(X)                                                                              \
    X(STRING, admin_users, "", RELOAD, "Users with all rights on the console (comma list)")         \
    X(BOOL, application_name_add_host, "0", RELOAD, "Append the client's host and port to application_name at login") \
    X(STRING, auth_dbname, "", RELOAD, "Database entry in which auth_query runs")                    \
    X(STRING, auth_file, "", RELOAD, "File of users and secrets")                                   \
    X(STRING, auth_hba_file, "", RELOAD, "Rules for auth_type = hba")                                \
    X(STRING, auth_ident_file, "", RELOAD, "User name maps for the rules of auth_hba_file")          \
    X(STRING, auth_ldap_options, "", RELOAD, "Options for auth_type = ldap")                         \
    X(STRING, auth_query, CONFIG_AUTH_QUERY_DEFAULT, RELOAD, "Query that finds a user's secret; $1 is the user's name") \
    X(AUTH_TYPE, auth_type, "md5", RELOAD, "How clients prove who they are: any, trust, plain, md5, scram-sha-256, cert, hba, ldap, pam") \
    X(STRING, auth_user, "", RELOAD, "User that runs auth_query for users that auth_file lacks")     \
    X(TIME, autodb_idle_timeout, "3600", RELOAD, "Forget unused databases that came from the entry *") \
    X(TIME, cancel_wait_timeout, "10", RELOAD, "Longest wait of a cancel request for a connection")  \
    X(TIME, client_idle_timeout, "0", RELOAD, "Close clients that have been idle this long")         \
    X(TIME, client_login_timeout, "60", RELOAD, "Close clients that do not finish their login")      \
    X(STRING, client_tls13_ciphers, "", RELOAD, "Cipher suites of TLS 1.3 towards clients")          \
    X(STRING, client_tls_ca_file, "", RELOAD, "Certificates that client certificates are checked against") \
    X(STRING, client_tls_cert_file, "", RELOAD, "Own certificate, shown to clients")                 \
    X(CHANNEL_BINDING, client_tls_channel_binding, "prefer", RELOAD, "SCRAM-SHA-256-PLUS for clients: disable, prefer: offered, require: no other SCRAM") \
    X(STRING, client_tls_ciphers, "default", RELOAD, "Ciphers up to TLS 1.2 towards clients")        \
    X(STRING, client_tls_dheparams, "auto", RELOAD, "Sizes of DHE keys: none, auto, legacy")         \
    X(STRING, client_tls_ecdhcurve, "auto", RELOAD, "Curve of ECDHE keys: none, auto, or its name")  \
    X(STRING, client_tls_key_file, "", RELOAD, "Private key of client_tls_cert_file")                \
    X(TLS_PROTOCOLS, client_tls_protocols, "secure", RELOAD, "TLS versions towards clients")         \
    X(SSLMODE, client_tls_sslmode, "disable", RELOAD, "TLS towards clients")                         \
    X(STRING, conffile, "", RELOAD, "File that the next RELOAD reads")                               \
    X(INT, default_pool_size, "20", RELOAD, "Server connections per pool; 0: no limit")              \
    X(BOOL, disable_pqexec, "0", BOOT, "Refuse simple queries")                                      \
    X(TIME, dns_max_ttl, "15", RELOAD, "How long an address of a host is remembered")                \
    X(TIME, dns_nxdomain_ttl, "15", RELOAD, "How long it is remembered that a host is unknown")      \
    X(TIME, dns_zone_check_period, "0", RELOAD, "How often the names of hosts in use are looked up again; 0: only when something connects")        \
    X(TIME, drain_timeout, "60", RELOAD, "Longest wait for transactions when clients are sent away; 0: no limit") \
    X(INT, dvm_max_workers, "4", RELOAD, "Refreshes of stream tables that run at the same time")     \
    X(STRING, dvm_password, "", RELOAD, "Password of dvm_user")                                      \
    X(INT, dvm_scheduler_interval_ms, "1000", RELOAD, "How often the scheduler looks for stream tables that are due, in milliseconds") \
    X(STRING, dvm_user, "", RELOAD, "User that maintains stream tables; unset: user= of the database, else postgres") \
    X(TIME, idle_transaction_timeout, "0", RELOAD, "Close clients that are idle in a transaction this long") \
    X(STRING, ignore_startup_parameters, "", RELOAD, "Startup parameters to drop (comma list)")      \
    X(STRING, job_name, "pgbouncer", BOOT, "Name of the Windows service; accepted and not used")      \
    X(STRING, listen_addr, "", BOOT, "Addresses to listen on (comma list); *: all; empty: unix socket only") \
    X(INT, listen_backlog, "128", BOOT, "Connections that the kernel queues")                        \
    X(BOOL, listen_lost_disconnect, "0", RELOAD, "Close clients that LISTEN when notifications may have been missed; 0: a NOTICE tells them") \
    X(INT, listen_port, "6432", BOOT, "Port, for TCP and in the name of the unix socket")            \
    X(BOOL, log_connections, "1", RELOAD, "Log logins")                                              \
    X(BOOL, log_disconnections, "1", RELOAD, "Log disconnections, with the reason")                  \
    X(BOOL, log_pooler_errors, "1", RELOAD, "Log errors that pgtrickle itself sends to clients")     \
    X(BOOL, log_stats, "1", RELOAD, "Log statistics every stats_period")                             \
    X(STRING, logfile, "", RELOAD, "Log file; opened anew by RELOAD and SIGHUP")                     \
    X(STRING, login_notify_message, "", RELOAD, "NOTICE that clients get after login")               \
    X(INT, max_client_conn, "100", RELOAD, "Clients in all")                                         \
    X(INT, max_db_client_connections, "0", RELOAD, "Clients per database entry; 0: no limit")        \
    X(INT, max_db_connections, "0", RELOAD, "Server connections per database entry; 0: no limit")    \
    X(INT, max_packet_size, "2147483647", RELOAD, "Larger messages close the connection")            \
    X(INT, max_prepared_statements, "200", RELOAD, "Prepared statements kept per server connection in transaction and statement mode; 0: not tracked") \
    X(INT, max_user_client_connections, "0", RELOAD, "Clients per user; 0: no limit")                \
    X(INT, max_user_connections, "0", RELOAD, "Server connections per user; 0: no limit")            \
    X(INT, min_pool_size, "0", RELOAD, "Server connections that a pool in use keeps open")           \
    X(INT, peer_id, "0", RELOAD, "Identity in a group of peers; 0: none")                            \
    X(STRING, pidfile, "", BOOT, "File that holds the process id")                                   \
    X(INT, pkt_buf, "4096", BOOT, "Size of a buffer of a busy connection")                           \
    X(TIME, pool_idle_timeout, "0", RELOAD, "Forget pools without connections; 0: never")            \
    X(POOL_MODE, pool_mode, "session", RELOAD, "When a server connection goes back: session, transaction, statement") \
    X(BOOL, prepared_errors_fatal, "0", RELOAD, "Close clients that use an unknown prepared statement's name, or one in use, as PgBouncer does; 0: an error in its place") \
    X(TIME, query_timeout, "0", RELOAD, "Close client and server when a query runs this long")       \
    X(TIME, query_wait_notify, "5", RELOAD, "Tell a client with a NOTICE that it has been queued this long") \
    X(TIME, query_wait_timeout, "120", RELOAD, "Longest wait for a server connection")               \
    X(BOOL, refuse_startup_parameters, "0", RELOAD, "Refuse startup parameters that PgBouncer would refuse; 0: they are set on whatever server the client gets") \
    X(INT, reserve_pool_size, "0", RELOAD, "More server connections for a pool whose clients wait")  \
    X(TIME, reserve_pool_timeout, "5", RELOAD, "Wait that opens the reserve")                        \
    X(STRING, resolv_conf, "", BOOT, "Resolver configuration file")                                  \
    X(INT, sbuf_loopcnt, "5", RELOAD, "Buffers per connection before others get a turn")             \
    X(INT, scram_iterations, "4096", RELOAD, "Iterations for verifiers made from plain passwords")   \
    X(TIME, server_cancel_timeout, "5", RELOAD, "How long a server may take to end what its client, gone in mid-query or mid-transaction, left behind; 0: it is closed at once") \
    X(TIME, server_check_delay, "30", RELOAD, "Idle age after which a server connection is probed before use") \
    X(STRING, server_check_query, "<empty>", RELOAD, "The probe; <empty>: an empty query; an empty value: no probe") \
    X(INT, server_connect_parallel, "8", RELOAD, "How many connections a pool opens at the same time while they succeed") \
    X(TIME, server_connect_timeout, "15", RELOAD, "Longest connect and login to a server")           \
    X(BOOL, server_fast_close, "0", RELOAD, "Session mode: close dirty server connections between transactions") \
    X(TIME, server_idle_timeout, "600", RELOAD, "Close server connections that are idle this long")  \
    X(TIME, server_lifetime, "3600", RELOAD, "Close unused server connections of this age; 0: use once") \
    X(TIME, server_login_retry, "15", RELOAD, "Pause after a failed connect or login")               \
    X(STRING, server_reset_query, "DISCARD ALL", RELOAD, "Sent when a connection goes back, in session mode") \
    X(BOOL, server_reset_query_always, "0", RELOAD, "Send server_reset_query in the other modes too") \
    X(BOOL, server_round_robin, "0", RELOAD, "Use the idle connection that has waited longest")      \
    X(STRING, server_tls13_ciphers, "", RELOAD, "Cipher suites of TLS 1.3 towards servers")          \
    X(STRING, server_tls_ca_file, "", RELOAD, "Certificates that server certificates are checked against; empty: the system's, as PgBouncer (libpq refuses verify-ca and verify-full then)") \
    X(STRING, server_tls_cert_file, "", RELOAD, "Own certificate, shown to servers")                 \
    X(CHANNEL_BINDING, server_tls_channel_binding, "prefer", RELOAD, "SCRAM-SHA-256-PLUS towards servers: disable, prefer: when offered, require: no other login") \
    X(STRING, server_tls_ciphers, "default", RELOAD, "Ciphers up to TLS 1.2 towards servers")        \
    X(STRING, server_tls_key_file, "", RELOAD, "Private key of server_tls_cert_file")                \
    X(TLS_NEGOTIATION, server_tls_negotiation, "postgres", RELOAD, "How TLS with servers begins: postgres: they are asked, direct: at once (PostgreSQL 17 and later)") \
    X(TLS_PROTOCOLS, server_tls_protocols, "secure", RELOAD, "TLS versions towards servers")         \
    X(SSLMODE, server_tls_sslmode, "prefer", RELOAD, "TLS towards servers")                          \
    X(SESSION_STATE, session_state, "pin", RELOAD, "State that cannot follow a client in transaction mode: pin its server, error, or ignore (docs/session-state.md)") \
    X(SHUTDOWN_MODE, shutdown_mode, "wait_for_clients", RELOAD, "What SIGTERM does: wait_for_clients, wait_for_servers, wait_for_transactions, immediate") \
    X(BOOL, so_reuseport, "0", BOOT, "SO_REUSEPORT on TCP listeners")                                \
    X(TIME, stats_period, "60", RELOAD, "Averaging window of SHOW STATS, and how often it is logged") \
    X(STRING, stats_users, "", RELOAD, "Users with a read-only console (comma list)")                \
    X(TIME, suspend_timeout, "10", RELOAD, "Longest wait of SUSPEND for a connection")               \
    X(BOOL, syslog, "0", RELOAD, "Log to syslog")                                                    \
    X(SYSLOG_FACILITY, syslog_facility, "daemon", RELOAD, "Facility in syslog")                      \
    X(STRING, syslog_ident, "pgbouncer", RELOAD, "Name in syslog")                                   \
    X(BOOL, tcp_defer_accept, "1", RELOAD, "TCP_DEFER_ACCEPT on listeners")                          \
    X(BOOL, tcp_keepalive, "1", RELOAD, "SO_KEEPALIVE on TCP connections")                           \
    X(INT, tcp_keepcnt, "0", RELOAD, "TCP_KEEPCNT; 0: the system's")                                 \
    X(INT, tcp_keepidle, "0", RELOAD, "TCP_KEEPIDLE in seconds; 0: the system's")                    \
    X(INT, tcp_keepintvl, "0", RELOAD, "TCP_KEEPINTVL in seconds; 0: the system's")                  \
    X(INT, tcp_socket_buffer, "0", RELOAD, "SO_SNDBUF and SO_RCVBUF; 0: the system's")               \
    X(INT, tcp_user_timeout, "0", RELOAD, "TCP_USER_TIMEOUT in milliseconds; 0: the system's")       \
    X(STRING, track_extra_parameters, "IntervalStyle", BOOT, "More reported parameters that follow the client (comma list)") \
    X(BOOL, track_sql_prepare, "1", RELOAD, "SQL's PREPARE, EXECUTE and DEALLOCATE follow the client as the protocol's statements do; 0: passed through as they are") \
    X(TIME, transaction_timeout, "0", RELOAD, "Close clients whose transaction lasts this long")     \
    X(STRING, unix_socket_dir, "/tmp", BOOT, "Directory of the unix socket; @name: abstract; empty: none") \
    X(STRING, unix_socket_group, "", BOOT, "Group of the unix socket")                               \
    X(OCTAL, unix_socket_mode, "0777", BOOT, "Permissions of the unix socket")                       \
    X(STRING, user, "", BOOT, "User to become after start")                                          \
    X(INT, verbose, "0", RELOAD, "More log lines: 0 to 3")                                           \
    X(INT, worker_fill_percent, "80", RELOAD, "How busy an event loop may be, in percent of a processor, before clients are served by the next one; 0: clients are spread evenly") \
    X(INT, worker_threads, "0", BOOT, "Event loops, each on a thread of its own; 0: one for each core, at most 4")

/* Read, checked and kept, so that a pgbouncer.ini works; nothing asks for them yet. What would make a
 * connection less safe than asked for is not among them: config_load refuses it. */
#define CONFIG_KEYS_WITHOUT_EFFECT(X)                                                               \
    X(job_name)                                                                                     \
    X(pkt_buf)                                                                                      \
    X(resolv_conf)                                                                                  \
    X(sbuf_loopcnt)

/* PgBouncer's: honours expiry and NOLOGIN. */
#define CONFIG_AUTH_QUERY_DEFAULT                                                                   \
    "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END "               \
    "FROM pg_authid WHERE rolname=$1 AND rolcanlogin"

#define CONFIG_DATABASE_KEYS(X)                                                                     \
    X(STRING, dbname, "Database on the server; unset: the name of the entry")                        \
    X(STRING, host, "Host name, address, directory of a unix socket, or a comma list of them; unset: unix_socket_dir") \
    X(INT, port, "Port of the server (5432)")                                                        \
    X(STRING, user, "Log in to the server as this user, whoever the client is")                      \
    X(STRING, password, "Password of user; unset: its secret in auth_file")                          \
    X(STRING, auth_user, "As the parameter")                                                         \
    X(STRING, auth_query, "As the parameter")                                                        \
    X(STRING, auth_dbname, "As the parameter")                                                       \
    X(INT, pool_size, "As default_pool_size")                                                        \
    X(INT, min_pool_size, "As the parameter")                                                        \
    X(INT, reserve_pool_size, "As the parameter; reserve_pool is the same")                          \
    X(POOL_MODE, pool_mode, "As the parameter")                                                      \
    X(SESSION_STATE, session_state, "As the parameter")                                              \
    X(INT, max_db_connections, "As the parameter")                                                   \
    X(INT, max_db_client_connections, "As the parameter")                                            \
    X(TIME, server_lifetime, "As the parameter")                                                     \
    X(TIME, query_wait_timeout, "As the parameter")                                                  \
    X(STRING, connect_query, "Sent after login; its errors are logged and ignored")                  \
    X(LOAD_BALANCE_HOSTS, load_balance_hosts, "round-robin, or disable: stay with a host until it fails") \
    X(TARGET_SESSION_ATTRS, target_session_attrs, "Which hosts of the list will do, as libpq has it: any, read-write, read-only, primary, standby, prefer-standby") \
    X(STRING, client_encoding, "Sent in the startup packet")                                         \
    X(STRING, datestyle, "Sent in the startup packet")                                               \
    X(STRING, timezone, "Sent in the startup packet")                                                \
    X(STRING, application_name, "Sent in the startup packet")                                        \
    X(STRING, dvm_user, "As the parameter")                                                          \
    X(STRING, dvm_password, "As the parameter")

#define CONFIG_USER_KEYS(X)                                                                         \
    X(INT, pool_size, "As default_pool_size")                                                        \
    X(INT, reserve_pool_size, "As the parameter")                                                    \
    X(POOL_MODE, pool_mode, "As the parameter")                                                      \
    X(SESSION_STATE, session_state, "As the parameter")                                              \
    X(INT, max_user_connections, "As the parameter")                                                 \
    X(INT, max_user_client_connections, "As the parameter")                                          \
    X(TIME, query_timeout, "As the parameter")                                                       \
    X(TIME, query_wait_timeout, "As the parameter")                                                  \
    X(TIME, idle_transaction_timeout, "As the parameter")                                            \
    X(TIME, transaction_timeout, "As the parameter")                                                 \
    X(TIME, client_idle_timeout, "As the parameter")

#define CONFIG_PEER_KEYS(X)                                                                         \
    X(STRING, host, "Where the peer listens")                                                        \
    X(INT, port, "Its port (6432)")                                                                  \
    X(INT, pool_size, "Cancel requests forwarded at the same time")
/* clang-format on */

#endif
