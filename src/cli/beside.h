/* Images that hv reads and does not write: what a machine writes goes to an overlay beside them. */
#pragma once
#include "block/chain.h"

/* Opens an image as chain_open does; one in a format that is not written, to be written to, gets
 * FILE.hv.qcow2 laid over it, which is made when it is not there. That of a file on a web server is
 * in `folder`; NULL: the current one. */
struct chain *beside_open(const char *path, const struct chain_rules *rules, const char *folder,
                          GError **error);
