/* Answers to proxy/outside.h: PAM, LDAP, the system's user database. Blocks; any thread. */
#ifndef PGTRICKLE_PROXY_IO_OUTSIDE_H
#define PGTRICKLE_PROXY_IO_OUTSIDE_H

struct outside_question;

void outside_ask(struct outside_question *q);

#endif
