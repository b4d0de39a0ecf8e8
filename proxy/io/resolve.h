/* Looks names up: getaddrinfo, which blocks, on a helper thread. */
#ifndef PGTRICKLE_PROXY_IO_RESOLVE_H
#define PGTRICKLE_PROXY_IO_RESOLVE_H

#include "proxy/dns.h"
#include "proxy/io/jobs.h"

/* Ends in dns_on_answer. */
void resolve_start(struct jobs *js, struct lookup *l);

#endif
