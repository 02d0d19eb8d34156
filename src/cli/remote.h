/* Disks on servers as the `hv` command sees them: URLs, and the hv-remote that serves each. */
#pragma once
#include "block/chain.h"

#include <stdint.h>

struct image_info;

/* Recognises what is there, as image_probe (block/image.h). */
bool remote_probe(const char *url, struct image_info *info, GError **error);
/* As chain_open: starts an hv-remote, which ends when the chain and the disk of it are freed, or
 * the machine that got its descriptor. */
struct chain *remote_chain(const char *url, const struct chain_rules *rules, GError **error);
/* Of a readonly chain: the disk's size, and a name for what is there now. */
bool remote_measure(const struct chain *chain, uint64_t *size, char **named, GError **error);

/* What `path` names, whichever it is. */
struct chain *remote_or_file(const char *path, const struct chain_rules *rules, GError **error);
