/* Where a command's data lies in guest memory: physical region pages (4.3) and scatter gather lists
 * (4.4). What the guest wrote is copied once and the copy judged; the work is bounded by the
 * length, which is at most NVME_TRANSFER, and for SGLs by a number of descriptors. */
#include "nvme.h"

/* SGL descriptors (figures 115 to 120). */
enum {
    SGL_DATA = 0x00,
    SGL_SEGMENT = 0x20,
    SGL_LAST_SEGMENT = 0x30,
    SGL_BATCH = 32,
    SGL_MAX = 1024, /* descriptors in all */
};
struct sgl {
    le64 address;
    le32 length;
    uint8_t reserved[3], id;
};

static uint16_t add(struct command *command, uint64_t at, uint64_t length)
{
    struct range *end = command->range + command->ranges;
    if (at + length < at)
        return NVME_DATA_ERROR;
    if (command->ranges && end[-1].at + end[-1].length == at) {
        end[-1].length += length;
        return NVME_OK;
    }
    if (command->ranges == command->room)
        return NVME_SGL_COUNT;
    *end = (struct range){ at, length };
    command->ranges++;
    return NVME_OK;
}

/* --- PRPs ------------------------------------------------------------------------------------ */

/* A PRP list for `left` bytes. Where a page of it ends before that, its last entry leads to the
 * next one (figure 112); as this begins at a page's start, it holds all the rest. */
static uint16_t map_list(struct command *command, uint64_t list, uint64_t left)
{
    le64 entries[NVME_RANGES];
    if (list % sizeof entries[0])
        return NVME_PRP_OFFSET;
    while (left) {
        uint64_t pages = (left + NVME_PAGE - 1) / NVME_PAGE;
        uint64_t fit = (NVME_PAGE - list % NVME_PAGE) / sizeof entries[0];
        unsigned n = (unsigned)MIN(MIN(pages, fit), NVME_RANGES);
        bool chained = pages > n;
        if (!pci_read(&command->nvme->dev, GPA(list), entries, n * sizeof entries[0]))
            return NVME_DATA_ERROR;
        for (unsigned i = 0; i < n; i++) {
            uint64_t at = le64_get(entries[i]), length = MIN(left, NVME_PAGE);
            if (at % NVME_PAGE)
                return NVME_PRP_OFFSET;
            if (chained && i == n - 1) {
                list = at;
                break;
            }
            uint16_t status = add(command, at, length);
            if (status)
                return status;
            left -= length;
        }
    }
    return NVME_OK;
}

static uint16_t map_prps(struct command *command, const struct sqe *sqe, uint64_t length)
{
    uint64_t first = le64_get(sqe->dptr[0]), second = le64_get(sqe->dptr[1]);
    uint64_t n = MIN(length, NVME_PAGE - first % NVME_PAGE);
    if (first % sizeof(uint32_t))
        return NVME_PRP_OFFSET;
    uint16_t status = add(command, first, n);
    if (status || n == length)
        return status;
    if (length - n > NVME_PAGE)
        return map_list(command, second, length - n);
    return second % NVME_PAGE ? NVME_PRP_OFFSET : add(command, second, length - n);
}

/* --- SGLs ------------------------------------------------------------------------------------ */

/* A walk over the segments of an SGL. */
struct walk {
    uint64_t left;   /* bytes wanted yet */
    unsigned seen;   /* descriptors */
    struct sgl next; /* the segment to read; id 0: none */
};

static uint16_t walk_data(struct command *command, struct walk *walk, const struct sgl *sgl)
{
    uint32_t length = le32_get(sgl->length);
    if (length > walk->left)
        return NVME_SGL_LENGTH;
    walk->left -= length;
    return length ? add(command, le64_get(sgl->address), length) : (uint16_t)NVME_OK;
}

/* One descriptor; `last` tells that it ends its segment. */
static uint16_t walk_one(struct command *command, struct walk *walk, const struct sgl *sgl,
                         bool last, bool in_last_segment)
{
    switch (sgl->id) {
    case SGL_DATA:
        return walk_data(command, walk, sgl);
    case SGL_SEGMENT:
    case SGL_LAST_SEGMENT:
        if (!last || in_last_segment)
            return NVME_SGL_SEGMENT;
        walk->next = *sgl;
        return NVME_OK;
    }
    return NVME_SGL_TYPE;
}

static uint16_t walk_segment(struct command *command, struct walk *walk)
{
    struct sgl batch[SGL_BATCH], segment = walk->next;
    uint64_t at = le64_get(segment.address);
    uint32_t bytes = le32_get(segment.length), count = bytes / (uint32_t)sizeof batch[0];
    walk->next.id = SGL_DATA;
    if (!count || bytes % sizeof batch[0])
        return NVME_SGL_SEGMENT;
    if (count > SGL_MAX - walk->seen)
        return NVME_SGL_COUNT;
    walk->seen += count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t in_batch = i % SGL_BATCH;
        if (!in_batch && !pci_read(&command->nvme->dev, GPA(at + i * sizeof batch[0]), batch,
                                   MIN(count - i, SGL_BATCH) * sizeof batch[0]))
            return NVME_DATA_ERROR;
        uint16_t status = walk_one(command, walk, &batch[in_batch], i == count - 1,
                                   segment.id == SGL_LAST_SEGMENT);
        if (status)
            return status;
    }
    return NVME_OK;
}

static uint16_t map_sgl(struct command *command, const struct sqe *sqe, uint64_t length)
{
    struct walk walk = { .left = length };
    struct sgl first;
    G_STATIC_ASSERT(sizeof first == sizeof sqe->dptr);
    memcpy(&first, sqe->dptr, sizeof first);
    if (first.id != SGL_DATA && !command_table(command))
        return NVME_BUSY;
    uint16_t status = walk_one(command, &walk, &first, true, false);
    while (!status && walk.next.id != SGL_DATA)
        status = walk_segment(command, &walk);
    return !status && walk.left ? (uint16_t)NVME_SGL_LENGTH : status;
}

/* --- for the commands ------------------------------------------------------------------------ */

uint16_t data_map(struct command *command, const struct sqe *sqe, uint64_t length)
{
    enum { PSDT_PRP, PSDT_SGL, PSDT_SGL_METADATA };
    unsigned psdt = sqe->flags >> SQE_PSDT_SHIFT;
    command->ranges = 0;
    if (!length || length > NVME_TRANSFER || psdt > PSDT_SGL_METADATA)
        return NVME_INVALID_FIELD;
    if (psdt != PSDT_PRP)
        return map_sgl(command, sqe, length);
    if (length > (NVME_SMALL - 1) * NVME_PAGE && !command_table(command))
        return NVME_BUSY;
    return map_prps(command, sqe, length);
}

uint16_t data_span(struct command *command, bool write)
{
    struct guest *guest = command->nvme->dev.board->guest;
    struct disk_request *request = &command->request;
    request->iov = command->table ? command->table->iov : command->iov;
    request->iov_count = 0;
    for (unsigned i = 0; i < command->ranges; i++)
        if (!guest_span(guest, GPA(command->range[i].at), command->range[i].length, write,
                        request->iov, &request->iov_count, command->room + NVME_SPLITS))
            return NVME_DATA_ERROR;
    return NVME_OK;
}

uint16_t data_copy(struct command *command, void *buffer, size_t length, bool to_guest)
{
    struct device *dev = &command->nvme->dev;
    uint8_t *at = buffer;
    for (unsigned i = 0; i < command->ranges && length; i++) {
        gpa from = GPA(command->range[i].at);
        size_t n = MIN(command->range[i].length, length);
        if (!(to_guest ? pci_write(dev, from, at, n) : pci_read(dev, from, at, n)))
            return NVME_DATA_ERROR;
        at += n;
        length -= n;
    }
    return NVME_OK;
}
