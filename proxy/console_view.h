/* What the console is told of the core: the rows of its SHOWs. On worker 0, with the other workers
 * halted, so that all of them may be looked at.
 */
#ifndef PGTRICKLE_PROXY_CONSOLE_VIEW_H
#define PGTRICKLE_PROXY_CONSOLE_VIEW_H

#include "proxy/admin.h"

struct proxy;

/* Sets all but `perform`. */
void console_view_fill(struct admin_view *v, struct proxy *p);

#endif
