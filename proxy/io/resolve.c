#include "proxy/io/resolve.h"

#include <netdb.h>
#include <sys/socket.h>

static void work(struct job *j)
{
    struct lookup *l = (struct lookup *)(void *)j;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(l->host, NULL, &hints, &list);

    switch (rc) {
    case 0:
        l->result = LOOKUP_FOUND;
        break;
    case EAI_NONAME:
#ifdef EAI_NODATA
    case EAI_NODATA:
#endif
        l->result = LOOKUP_NO_SUCH_NAME;
        break;
    default:
        l->result = LOOKUP_NO_ANSWER;
        break;
    }
    for (struct addrinfo *ai = list; ai != NULL && l->n_addresses < DNS_ADDRESSES_MAX;
         ai = ai->ai_next)
        if (getnameinfo(ai->ai_addr, ai->ai_addrlen, l->addresses[l->n_addresses], DNS_ADDRESS_SIZE,
                        NULL, 0, NI_NUMERICHOST) == 0)
            l->n_addresses++;
    if (list != NULL)
        freeaddrinfo(list);
}

static void done(struct job *j)
{
    dns_on_answer((struct lookup *)(void *)j);
}

void resolve_start(struct jobs *js, struct lookup *l)
{
    l->job = (struct job){ .work = work, .done = done };
    jobs_start(js, &l->job);
}
