#include "proxy/io/tls.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/arena.h"
#include "base/text.h"

/* RFC 7301: the name that PostgreSQL has registered, behind its length. */
static const unsigned char alpn[] = "\012postgresql";
#define ALPN_LEN (sizeof(alpn) - 1)

struct tls_context {
    atomic_int n_refs;
    SSL_CTX *ssl;
    BIO_METHOD *method; /* how a stream reads and writes */
};

struct tls_stream {
    struct tls_context *context;
    SSL *ssl;
    int fd;
    int error;          /* errno of a failed system call; 0: none failed */
    const char *reason; /* OpenSSL's; static */
    bool at_end;
    bool is_open; /* the handshake is over, and nothing has failed since */
    bool accepts;
    bool is_direct;
    char *host;  /* the name that the peer's certificate must have; NULL: any */
    char *first; /* read by the caller before the stream was made */
    size_t first_len;
    size_t first_at;
};

/* ---- what OpenSSL reads and writes by ------------------------------------------------------ */

static int bio_write(BIO *b, const char *bytes, int n)
{
    struct tls_stream *t = BIO_get_data(b);
    ssize_t sent;

    BIO_clear_retry_flags(b);
    do
        sent = send(t->fd, bytes, (size_t)n, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        BIO_set_retry_write(b);
    else if (sent < 0)
        t->error = errno;
    return (int)sent;
}

static int bio_read(BIO *b, char *to, int size)
{
    struct tls_stream *t = BIO_get_data(b);
    ssize_t got;

    BIO_clear_retry_flags(b);
    if (t->first != NULL) {
        size_t n = t->first_len - t->first_at;
        if (n > (size_t)size)
            n = (size_t)size;
        memcpy(to, t->first + t->first_at, n);
        t->first_at += n;
        if (t->first_at == t->first_len) {
            free(t->first);
            t->first = NULL;
        }
        return (int)n;
    }
    do
        got = recv(t->fd, to, (size_t)size, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        BIO_set_retry_read(b);
    else if (got < 0)
        t->error = errno;
    t->at_end = got == 0;
    return (int)got;
}

static long bio_ctrl(BIO *b, int command, long number, void *pointer)
{
    struct tls_stream *t = BIO_get_data(b);

    (void)number;
    (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return t->at_end;
    default:
        return 0;
    }
}

/* ---- contexts ------------------------------------------------------------------------------ */

/* One side's part of the configuration. */
struct side {
    const char *prefix;
    bool accepts;
    bool verifies;
    const char *key_file;
    const char *cert_file;
    const char *ca_file;
    const char *protocols;
    const char *ciphers;
    const char *tls13_ciphers;
    const char *dheparams;
    const char *ecdhcurve;
};

/* The oldest entry of OpenSSL's queue of errors. */
static const char *reason(char *buffer, size_t size)
{
    unsigned long code = ERR_get_error();
    const char *text = code != 0 ? ERR_reason_error_string(code) : NULL;

    if (code != 0 && ERR_GET_LIB(code) == ERR_LIB_SYS)
        return strerror(ERR_GET_REASON(code));
    if (text != NULL)
        return text;
    if (code == 0)
        return "unknown error";
    ERR_error_string_n(code, buffer, size);
    return buffer;
}

static bool fail(const struct side *s, const char *key, const char *value, struct err *e)
{
    char buffer[256];

    err_set(e, ERR_CONFIG, "F0000", "TLS setup failed: %s_%s \"%s\": %s", s->prefix, key, value,
            reason(buffer, sizeof(buffer)));
    ERR_clear_error();
    return false;
}

static bool set_protocols(SSL_CTX *ssl, const struct side *s, struct err *e)
{
    static const struct {
        unsigned bit;
        int version;
        uint64_t no;
    } versions[] = {
        { CONFIG_TLS_1_0, TLS1_VERSION, SSL_OP_NO_TLSv1 },
        { CONFIG_TLS_1_1, TLS1_1_VERSION, SSL_OP_NO_TLSv1_1 },
        { CONFIG_TLS_1_2, TLS1_2_VERSION, SSL_OP_NO_TLSv1_2 },
        { CONFIG_TLS_1_3, TLS1_3_VERSION, SSL_OP_NO_TLSv1_3 },
    };
    unsigned wanted = config_tls_protocols(s->protocols);
    int lowest = 0, highest = 0;

    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        if (!(wanted & versions[i].bit)) {
            SSL_CTX_set_options(ssl, versions[i].no);
            continue;
        }
        SSL_CTX_clear_options(ssl, versions[i].no);
        lowest = lowest == 0 ? versions[i].version : lowest;
        highest = versions[i].version;
    }
    if (lowest == 0)
        return err_set(e, ERR_CONFIG, "F0000",
                       "TLS setup failed: %s_protocols \"%s\": no version is left", s->prefix,
                       s->protocols);
    if (!SSL_CTX_set_min_proto_version(ssl, lowest) || !SSL_CTX_set_max_proto_version(ssl, highest))
        return fail(s, "protocols", s->protocols, e);
    return true;
}

/* The words that PgBouncer has for lists of ciphers. */
static const char *cipher_list(const char *word)
{
    static const struct {
        const char *word;
        const char *list;
    } words[] = {
        { "", "HIGH+EECDH:HIGH+EDH:!SSLv3:!SHA384:!SHA256:!DSS:!aNULL" },
        { "default", "HIGH+EECDH:HIGH+EDH:!SSLv3:!SHA384:!SHA256:!DSS:!aNULL" },
        { "secure", "HIGH+EECDH:HIGH+EDH:!SSLv3:!SHA384:!SHA256:!DSS:!aNULL" },
        { "normal", "HIGH+EECDH:HIGH+EDH:HIGH+RSA:+SHA384:+SHA256:+SSLv3:+EDH:+RSA:-3DES:3DES+RSA:"
                    "!CAMELLIA:!DSS:!aNULL" },
        { "fast", "HIGH+EECDH:HIGH+EDH:HIGH+RSA:+AES256:+SHA256:+SHA384:+SSLv3:+EDH:+RSA:-3DES:"
                  "3DES+RSA:!CAMELLIA:!DSS:!aNULL" },
        { "all", "HIGH:+3DES:!aNULL" },
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcasecmp(words[i].word, word) == 0)
            return words[i].list;
    return word;
}

static bool set_ciphers(SSL_CTX *ssl, const struct side *s, struct err *e)
{
    struct text list;

    text_init(&list);
    text_put(&list, cipher_list(s->ciphers));
    if (strcasecmp(s->ecdhcurve, "none") == 0)
        text_put(&list, ":!kECDHE");
    bool ok = SSL_CTX_set_cipher_list(ssl, list.ptr) == 1;
    text_free(&list);
    if (!ok)
        return fail(s, "ciphers", s->ciphers, e);
    if (s->tls13_ciphers[0] != '\0' && SSL_CTX_set_ciphersuites(ssl, s->tls13_ciphers) != 1) {
        ERR_clear_error();
        return err_set(e, ERR_CONFIG, "F0000",
                       "TLS setup failed: failed to set the TLSv1.3 cipher suites: \"%s\"",
                       s->tls13_ciphers);
    }
    return true;
}

/* Only of what we offer to clients: towards servers they choose. */
static bool set_key_exchange(SSL_CTX *ssl, const struct side *s, struct err *e)
{
    if (s->dheparams[0] == '\0' || strcasecmp(s->dheparams, "auto") == 0)
        SSL_CTX_set_dh_auto(ssl, 1);
    else if (strcasecmp(s->dheparams, "legacy") == 0)
        SSL_CTX_set_dh_auto(ssl, 2); /* 1024 bits whatever the certificate */
    else if (strcasecmp(s->dheparams, "none") != 0)
        return err_set(e, ERR_CONFIG, "F0000",
                       "TLS setup failed: invalid %s_dheparams: %s (none, auto or legacy)",
                       s->prefix, s->dheparams);
    if (s->ecdhcurve[0] != '\0' && strcasecmp(s->ecdhcurve, "auto") != 0 &&
        strcasecmp(s->ecdhcurve, "none") != 0 && SSL_CTX_set1_groups_list(ssl, s->ecdhcurve) != 1)
        return fail(s, "ecdhcurve", s->ecdhcurve, e);
    return true;
}

/* A key with a passphrase would make OpenSSL ask at the terminal. */
static int no_passphrase(char *buffer, int size, int is_writing, void *arg)
{
    (void)buffer;
    (void)size;
    (void)is_writing;
    (void)arg;
    return 0;
}

static bool set_identity(SSL_CTX *ssl, const struct side *s, struct err *e)
{
    SSL_CTX_set_default_passwd_cb(ssl, no_passphrase);
    if (s->cert_file[0] != '\0' && SSL_CTX_use_certificate_chain_file(ssl, s->cert_file) != 1)
        return fail(s, "cert_file", s->cert_file, e);
    if (s->key_file[0] != '\0' &&
        SSL_CTX_use_PrivateKey_file(ssl, s->key_file, SSL_FILETYPE_PEM) != 1)
        return fail(s, "key_file", s->key_file, e);
    if (s->cert_file[0] != '\0' && s->key_file[0] != '\0' && SSL_CTX_check_private_key(ssl) != 1)
        return fail(s, "key_file", s->key_file, e);
    return true;
}

static bool set_authorities(SSL_CTX *ssl, const struct side *s, struct err *e)
{
    if (s->ca_file[0] != '\0') {
        if (SSL_CTX_load_verify_locations(ssl, s->ca_file, NULL) != 1)
            return fail(s, "ca_file", s->ca_file, e);
    } else if (s->verifies && SSL_CTX_set_default_verify_paths(ssl) != 1) {
        return fail(s, "ca_file", "", e);
    }
    if (!s->verifies)
        return true;
    if (s->accepts) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(s->ca_file);
        if (names == NULL)
            return fail(s, "ca_file", s->ca_file, e);
        SSL_CTX_set_client_CA_list(ssl, names); /* takes them over */
    }
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return true;
}

/* A client that names protocols must name ours. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *arg)
{
    unsigned char *chosen;

    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_len, alpn, ALPN_LEN, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static BIO_METHOD *make_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "pgtrickle");

    if (m == NULL || !BIO_meth_set_write(m, bio_write) || !BIO_meth_set_read(m, bio_read) ||
        !BIO_meth_set_ctrl(m, bio_ctrl))
        abort(); /* no memory */
    return m;
}

static struct tls_context *context_new(const struct side *s, struct err *e)
{
    static const unsigned char session_context[] = "pgtrickle";
    SSL_CTX *ssl = SSL_CTX_new(s->accepts ? TLS_server_method() : TLS_client_method());

    if (ssl == NULL)
        abort(); /* no memory */
    ERR_clear_error();
    SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                 SSL_OP_NO_SSLv3);
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    /* A record's head and body by one system call. */
    SSL_CTX_set_read_ahead(ssl, 1);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(ssl, session_context, sizeof(session_context) - 1);
    bool ok = set_protocols(ssl, s, e) && set_ciphers(ssl, s, e) &&
              (!s->accepts || set_key_exchange(ssl, s, e)) && set_identity(ssl, s, e) &&
              set_authorities(ssl, s, e);
    if (!ok) {
        SSL_CTX_free(ssl);
        return NULL;
    }
    if (s->accepts)
        SSL_CTX_set_alpn_select_cb(ssl, on_alpn, NULL);
    else
        SSL_CTX_set_alpn_protos(ssl, alpn, ALPN_LEN);
    struct tls_context *t = mem_alloc(sizeof(*t));
    t->n_refs = 1;
    t->ssl = ssl;
    t->method = make_method();
    return t;
}

static struct tls_context *context_ref(struct tls_context *t)
{
    atomic_fetch_add(&t->n_refs, 1);
    return t;
}

void tls_context_unref(struct tls_context *t)
{
    if (t == NULL || atomic_fetch_sub(&t->n_refs, 1) > 1)
        return;
    SSL_CTX_free(t->ssl);
    BIO_meth_free(t->method);
    free(t);
}

bool tls_load(const struct config *c, struct tls_context **clients, struct tls_context **servers,
              struct err *e)
{
    struct side to_clients = {
        .prefix = "client_tls",
        .accepts = true,
        .verifies = c->client_tls_sslmode >= SSLMODE_VERIFY_CA,
        .key_file = c->client_tls_key_file,
        .cert_file = c->client_tls_cert_file,
        .ca_file = c->client_tls_ca_file,
        .protocols = c->client_tls_protocols,
        .ciphers = c->client_tls_ciphers,
        .tls13_ciphers = c->client_tls13_ciphers,
        .dheparams = c->client_tls_dheparams,
        .ecdhcurve = c->client_tls_ecdhcurve,
    };
    struct side to_servers = {
        .prefix = "server_tls",
        .verifies = c->server_tls_sslmode >= SSLMODE_VERIFY_CA,
        .key_file = c->server_tls_key_file,
        .cert_file = c->server_tls_cert_file,
        .ca_file = c->server_tls_ca_file,
        .protocols = c->server_tls_protocols,
        .ciphers = c->server_tls_ciphers,
        .tls13_ciphers = c->server_tls13_ciphers,
        .dheparams = "",
        .ecdhcurve = "",
    };

    *clients = *servers = NULL;
    if (c->client_tls_sslmode != SSLMODE_DISABLE) {
        *clients = context_new(&to_clients, e);
        if (*clients == NULL)
            return false;
    }
    if (c->server_tls_sslmode != SSLMODE_DISABLE) {
        *servers = context_new(&to_servers, e);
        if (*servers == NULL) {
            tls_context_unref(*clients);
            *clients = NULL;
            return false;
        }
    }
    return true;
}

/* ---- streams ------------------------------------------------------------------------------- */

struct tls_stream *tls_stream_new(const struct tls_start *how, int fd)
{
    struct tls_stream *t = mem_alloc(sizeof(*t));
    BIO *bio = BIO_new(how->context->method);

    t->context = context_ref(how->context);
    t->ssl = SSL_new(t->context->ssl);
    if (bio == NULL || t->ssl == NULL)
        abort(); /* no memory */
    t->fd = fd;
    t->accepts = how->accepts;
    t->is_direct = how->is_direct;
    if (how->checks_host)
        t->host = mem_strdup(how->host);
    if (how->first.len > 0) {
        t->first = mem_alloc(how->first.len);
        memcpy(t->first, how->first.ptr, how->first.len);
        t->first_len = how->first.len;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    if (t->accepts) {
        SSL_set_accept_state(t->ssl);
    } else {
        struct in6_addr ip;
        SSL_set_connect_state(t->ssl);
        /* As libpq: a name tells a server with several which certificate is wanted. */
        if (inet_pton(AF_INET, how->host, &ip) != 1 && inet_pton(AF_INET6, how->host, &ip) != 1)
            SSL_set_tlsext_host_name(t->ssl, how->host);
    }
    return t;
}

void tls_stream_free(struct tls_stream *t)
{
    if (t == NULL)
        return;
    SSL_free(t->ssl);
    tls_context_unref(t->context);
    free(t->host);
    free(t->first);
    free(t);
}

/* What became of a call that did not succeed. */
static enum tls_status status_of(struct tls_stream *t, int result)
{
    switch (SSL_get_error(t->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return TLS_WANTS_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANTS_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_END;
    default:
        t->is_open = false;
        t->reason = ERR_reason_error_string(ERR_peek_error());
        return TLS_BROKEN;
    }
}

/* RFC 5929, 4.1: the hash of the certificate by its signature's own hash; what is weaker than
 * SHA-256 counts as that. None where the signature has no hash of its own (Ed25519). */
static void put_end_point(struct tls_info *info, X509 *certificate)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    int digest = NID_undef;

    if (certificate == NULL || !X509_get_signature_info(certificate, &digest, NULL, NULL, NULL) ||
        digest == NID_undef)
        return;
    if (digest == NID_md5 || digest == NID_sha1)
        digest = NID_sha256;
    const EVP_MD *md = EVP_get_digestbynid(digest);
    if (md == NULL || !X509_digest(certificate, md, hash, &len) || len > TLS_END_POINT_MAX)
        return;
    memcpy(info->end_point, hash, len);
    info->end_point_len = len;
}

/* The common name, malloc; NULL: none. False: it holds a NUL, with which it could pass for another
 * one. */
static bool take_name(X509 *certificate, char **name)
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *utf8 = NULL;

    *name = NULL;
    if (at < 0)
        return true;
    int len =
        ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (len < 0)
        return true;
    bool ok = memchr(utf8, '\0', (size_t)len) == NULL;
    if (ok) {
        *name = mem_alloc((size_t)len + 1);
        memcpy(*name, utf8, (size_t)len);
        (*name)[len] = '\0';
    }
    OPENSSL_free(utf8);
    return ok;
}

/* The first common name of the subject is the address itself, and no alternative name says
 * anything: certificates of before subjectAltName, which PgBouncer and libpq take. */
static bool is_named_by_address(X509 *certificate, const char *host)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    char *name;

    if (names != NULL) {
        GENERAL_NAMES_free(names);
        return false;
    }
    bool same = take_name(certificate, &name) && name != NULL && strcmp(name, host) == 0;
    free(name);
    return same;
}

static bool certificate_is_for(X509 *certificate, const char *host)
{
    struct in6_addr ip;

    if (inet_pton(AF_INET, host, &ip) == 1 || inet_pton(AF_INET6, host, &ip) == 1)
        return X509_check_ip_asc(certificate, host, 0) == 1 ||
               is_named_by_address(certificate, host);
    return X509_check_host(certificate, host, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
}

static bool handshake_failed(struct tls_stream *t, struct err *e)
{
    char buffer[256];
    long verified = SSL_get_verify_result(t->ssl);
    unsigned long code = ERR_peek_error();

    t->is_open = false;
    if (verified != X509_V_OK && code != 0 &&
        ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        err_set(e, ERR_PEER, "08006", "TLS handshake error: certificate verify failed: %s",
                X509_verify_cert_error_string(verified));
    else if (t->error != 0)
        err_set(e, ERR_PEER, "08006", "TLS handshake error: %s", strerror(t->error));
    else if (t->at_end)
        err_set(e, ERR_PEER, "08006", "TLS handshake error: the peer ended the connection");
    else
        err_set(e, ERR_PEER, "08006", "TLS handshake error: %s", reason(buffer, sizeof(buffer)));
    ERR_clear_error();
    return false;
}

/* The handshake is over: what it did not check. */
static bool check_peer(struct tls_stream *t, struct tls_info *info, struct err *e)
{
    const unsigned char *chosen;
    unsigned chosen_len;

    SSL_get0_alpn_selected(t->ssl, &chosen, &chosen_len);
    if (chosen_len > 0 && (chosen_len != ALPN_LEN - 1 || memcmp(chosen, alpn + 1, chosen_len) != 0))
        return err_set(e, ERR_PEER, "08P01",
                       "TLS handshake error: the peer chose another application protocol");
    if (chosen_len == 0 && t->is_direct)
        return err_set(e, ERR_PEER, "08P01",
                       "direct TLS connection without ALPN protocol negotiation extension");
    X509 *peer = SSL_get0_peer_certificate(t->ssl);
    if (t->accepts) {
        put_end_point(info, SSL_get_certificate(t->ssl));
        if (peer != NULL && !take_name(peer, &info->peer_name))
            return err_set(e, ERR_PEER, "28000",
                           "TLS handshake error: certificate verify failed: the common name holds "
                           "a NUL");
        return true;
    }
    put_end_point(info, peer);
    if (t->host != NULL && (peer == NULL || !certificate_is_for(peer, t->host)))
        return err_set(e, ERR_PEER, "08006",
                       "TLS handshake error: certificate verify failed: it is not for \"%s\"",
                       t->host);
    return true;
}

enum tls_status tls_handshake(struct tls_stream *t, struct tls_info **info, struct err *e)
{
    ERR_clear_error();
    int result = SSL_do_handshake(t->ssl);
    if (result != 1) {
        enum tls_status status = status_of(t, result);
        if (status == TLS_WANTS_READ || status == TLS_WANTS_WRITE)
            return status;
        handshake_failed(t, e);
        return TLS_BROKEN;
    }
    struct tls_info *i = mem_alloc(sizeof(*i));
    i->version = SSL_get_version(t->ssl);
    i->cipher = SSL_get_cipher_name(t->ssl);
    t->is_open = true;
    if (!check_peer(t, i, e)) {
        tls_info_free(i);
        return TLS_BROKEN;
    }
    free(t->host);
    t->host = NULL;
    *info = i;
    return TLS_OK;
}

enum tls_status tls_read(struct tls_stream *t, void *to, size_t size, size_t *n)
{
    ERR_clear_error();
    int result = SSL_read_ex(t->ssl, to, size, n);
    return result == 1 ? TLS_OK : status_of(t, result);
}

enum tls_status tls_write(struct tls_stream *t, const void *bytes, size_t size, size_t *n)
{
    ERR_clear_error();
    int result = SSL_write_ex(t->ssl, bytes, size, n);
    return result == 1 ? TLS_OK : status_of(t, result);
}

bool tls_has_pending(const struct tls_stream *t)
{
    return t->first != NULL || SSL_has_pending(t->ssl) == 1;
}

const char *tls_reason(const struct tls_stream *t)
{
    return t->error != 0 ? strerror(t->error) : t->reason != NULL ? t->reason : "TLS error";
}

void tls_stream_end(struct tls_stream *t)
{
    if (!t->is_open)
        return;
    ERR_clear_error();
    SSL_shutdown(t->ssl);
    ERR_clear_error();
}
