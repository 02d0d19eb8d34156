/* Requests cut into parts; see split.h. */
#include "block/split.h"

enum { SPLITS = 32 /* at a time: 80 KiB, of a disk that needs them */ };

static struct split *find_room(struct splits *splits)
{
    if (!splits->all) {
        splits->all = g_try_new(struct split, SPLITS);
        for (unsigned i = 0; splits->all && i < SPLITS; i++) {
            splits->all[i].next = splits->free;
            splits->free = &splits->all[i];
        }
    }
    return splits->free;
}

struct split *split_begin(struct splits *splits, struct disk_request *request)
{
    struct split *split = find_room(splits);
    if (!split)
        return NULL;
    splits->free = split->next;
    split->splits = splits;
    split->whole = request;
    split->cursor = (struct cursor){ request->iov, 0 };
    split->cut = 0;
    split->part_count = split->span_count = split->left = 0;
    split->error = 0;
    return split;
}

void split_give_up(struct split *split)
{
    split->next = split->splits->free;
    split->splits->free = split;
}

static void part_done(struct disk_request *part, int error)
{
    struct split *split = part->owner;
    struct disk_request *whole = split->whole;
    if (!split->error)
        split->error = error;
    if (--split->left)
        return;
    error = split->error;
    split_give_up(split);
    disk_finish(whole, error);
}

bool split_cut(struct split *split, uint64_t length, uint64_t at)
{
    const struct disk_request *whole = split->whole;
    struct iovec *spans = &split->spans[split->span_count];
    size_t taken = 0;
    if (split->part_count == SPLIT_PARTS)
        return false;
    unsigned count =
        cursor_take(&split->cursor, length, spans, SPLIT_SPANS - split->span_count, &taken);
    if (taken < length)
        return false;
    split->parts[split->part_count++] = (struct disk_request){
        .op = whole->op,
        .offset = whole->offset + split->cut,
        .length = length,
        .iov = spans,
        .iov_count = count,
        .done = part_done,
        .owner = split,
        .at = at,
    };
    split->span_count += count;
    split->cut += length;
    split->left++;
    return true;
}

void split_zero(struct split *split, uint64_t length)
{
    cursor_zero(&split->cursor, length);
    split->cut += length;
}

void splits_free(struct splits *splits)
{
    g_free(splits->all);
}
