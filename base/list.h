/* Intrusive doubly linked lists.
 *
 * A list_node is embedded in what is listed; a struct list is its head. A node is in at most one
 * list; a zeroed or removed node is in none (list_node_is_linked). Nothing allocates.
 */
#ifndef PGTRICKLE_BASE_LIST_H
#define PGTRICKLE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *prev;
    struct list_node *next;
};

struct list {
    struct list_node head; /* a ring; empty when head.next is the head itself */
    unsigned count;
};

#define LIST_ITEM(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* Visits every node; the visited node may be removed by the body. */
#define LIST_FOREACH(list, node)                                                                   \
    for (struct list_node *node = (list)->head.next, *node##_next = node->next;                    \
         node != &(list)->head; node = node##_next, node##_next = node->next)

static inline void list_init(struct list *l)
{
    l->head.prev = l->head.next = &l->head;
    l->count = 0;
}

static inline bool list_is_empty(const struct list *l)
{
    return l->count == 0;
}

static inline bool list_node_is_linked(const struct list_node *n)
{
    return n->next != NULL;
}

static inline void list_insert_before(struct list *l, struct list_node *at, struct list_node *n)
{
    n->prev = at->prev;
    n->next = at;
    at->prev->next = n;
    at->prev = n;
    l->count++;
}

static inline void list_append(struct list *l, struct list_node *n)
{
    list_insert_before(l, &l->head, n);
}

static inline void list_prepend(struct list *l, struct list_node *n)
{
    list_insert_before(l, l->head.next, n);
}

static inline void list_remove(struct list *l, struct list_node *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = NULL;
    l->count--;
}

/* The first (last) node, or NULL. */
static inline struct list_node *list_first(const struct list *l)
{
    return l->count == 0 ? NULL : l->head.next;
}

static inline struct list_node *list_last(const struct list *l)
{
    return l->count == 0 ? NULL : l->head.prev;
}

static inline struct list_node *list_pop(struct list *l)
{
    struct list_node *n = list_first(l);

    if (n == NULL)
        return NULL;
    l->head.next = n->next;
    n->next->prev = &l->head;
    n->prev = n->next = NULL;
    l->count--;
    return n;
}

#endif
