/* The command line: PgBouncer's. */
#ifndef PGTRICKLE_PROXY_OPTIONS_H
#define PGTRICKLE_PROXY_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

struct options {
    bool reboot; /* -R: take over from the process that runs */
    bool daemon;
    bool quiet;
    int verbose; /* how often */
    const char *user;
    const char *config;
};

enum options_result {
    OPTIONS_RUN,
    OPTIONS_DONE, /* --help, --version: exit with 0 */
    OPTIONS_BAD,  /* exit with 1 */
};

/* Strings are argv's. What --help and --version say goes to out, complaints go to complaints. */
enum options_result options_parse(int argc, char **argv, struct options *o, FILE *out,
                                  FILE *complaints);

#endif
