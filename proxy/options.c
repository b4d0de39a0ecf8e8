#include "proxy/options.h"

#include <event2/event.h>
#include <getopt.h>
#include <openssl/crypto.h>

#include "proxy/proxy.h"

static void print_help(FILE *out, const char *program)
{
    fprintf(out,
            "%s is a connection pooler for PostgreSQL that keeps stream tables up to date.\n"
            "\n"
            "Usage:\n"
            "  %s [OPTION]... CONFIG_FILE\n"
            "\n"
            "Options:\n"
            "  -d, --daemon         run in background (as a daemon; needs pidfile)\n"
            "  -q, --quiet          run quietly: no log on stderr\n"
            "  -R, --reboot         take over from the process that runs, clients and all\n"
            "  -u, --user=USERNAME  assume identity of USERNAME\n"
            "  -v, --verbose        increase verbosity; may be repeated\n"
            "  -V, --version        show version, then exit\n"
            "  -h, --help           show this help, then exit\n",
            program, program);
}

enum options_result options_parse(int argc, char **argv, struct options *o, FILE *out,
                                  FILE *complaints)
{
    static const struct option longs[] = {
        { "daemon", no_argument, NULL, 'd' },  { "quiet", no_argument, NULL, 'q' },
        { "reboot", no_argument, NULL, 'R' },  { "user", required_argument, NULL, 'u' },
        { "verbose", no_argument, NULL, 'v' }, { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },    { NULL, 0, NULL, 0 },
    };
    const char *program = argc > 0 ? argv[0] : "pgtrickle";
    int c;

    *o = (struct options){ 0 };
    optind = 0; /* a second call starts again (GNU) */
    while ((c = getopt_long(argc, argv, "dqRu:vVh", longs, NULL)) != -1) {
        switch (c) {
        case 'd':
            o->daemon = true;
            break;
        case 'q':
            o->quiet = true;
            break;
        case 'R':
            o->reboot = true;
            break;
        case 'u':
            o->user = optarg;
            break;
        case 'v':
            o->verbose++;
            break;
        case 'V':
            fprintf(out, "pgtrickle %s\nlibevent %s\ntls: %s\n", PGTRICKLE_VERSION,
                    event_get_version(), OpenSSL_version(OPENSSL_VERSION));
            return OPTIONS_DONE;
        case 'h':
            print_help(out, program);
            return OPTIONS_DONE;
        default: /* getopt has complained */
            fprintf(complaints, "Try \"%s --help\" for more information.\n", program);
            return OPTIONS_BAD;
        }
    }
    if (optind + 1 != argc) {
        fprintf(complaints,
                "%s: no configuration file specified\n"
                "Try \"%s --help\" for more information.\n",
                program, program);
        return OPTIONS_BAD;
    }
    o->config = argv[optind];
    return OPTIONS_RUN;
}
