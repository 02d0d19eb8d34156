/* The NVMe admin command set (section 5): queues, aborts, the doorbell buffer. Identify, features
 * and log pages have files of their own. */
#include "nvme.h"

enum admin_opcode {
    ADMIN_DELETE_SQ = 0x00,
    ADMIN_CREATE_SQ = 0x01,
    ADMIN_GET_LOG = 0x02,
    ADMIN_DELETE_CQ = 0x04,
    ADMIN_CREATE_CQ = 0x05,
    ADMIN_IDENTIFY = 0x06,
    ADMIN_ABORT = 0x08,
    ADMIN_SET_FEATURES = 0x09,
    ADMIN_GET_FEATURES = 0x0a,
    ADMIN_ASYNC_EVENT = 0x0c,
    ADMIN_DOORBELLS = 0x7c,
};
enum { QUEUE_CONTIGUOUS = 1, QUEUE_INTERRUPT = 2 };

/* --- queues ---------------------------------------------------------------------------------- */

static bool in_memory(const struct nvme *nvme, uint64_t at, size_t length, bool write)
{
    struct iovec iov[NVME_SPLITS];
    unsigned used = 0;
    return guest_span(nvme->dev.board->guest, GPA(at), length, write, iov, &used, NVME_SPLITS);
}

/* A new queue as Create I/O Queue describes it. */
struct ring {
    unsigned id, size;
    uint64_t address;
};

/* What both kinds of queues ask of a command (5.3, 5.4). */
static uint16_t parse_ring(const struct nvme *nvme, const struct sqe *sqe, bool submission,
                           struct ring *ring)
{
    uint32_t dw10 = sqe_dword(sqe, 10);
    unsigned log = nvme->regs.cc >> (submission ? CC_IOSQES_SHIFT : CC_IOCQES_SHIFT) & 15;
    unsigned wanted = submission ? NVME_SQE_LOG : NVME_CQE_LOG;
    ring->id = dw10 & 0xffff;
    ring->size = (dw10 >> 16) + 1;
    ring->address = le64_get(sqe->dptr[0]);
    if (!ring->id || ring->id > nvme->queues)
        return NVME_QUEUE_ID;
    if (submission ? nvme->regs.sqs[ring->id].used : nvme->regs.cqs[ring->id].used)
        return NVME_QUEUE_ID;
    if (ring->size < 2 || ring->size > NVME_ENTRIES || log != wanted)
        return NVME_QUEUE_SIZE;
    if (!(sqe_dword(sqe, 11) & QUEUE_CONTIGUOUS))
        return NVME_INVALID_FIELD; /* CAP.CQR */
    if (ring->address % NVME_PAGE)
        return NVME_PRP_OFFSET;
    return in_memory(nvme, ring->address, (size_t)ring->size << wanted, !submission)
               ? NVME_OK
               : NVME_INVALID_FIELD;
}

static uint16_t create_cq(struct command *command, const struct sqe *sqe)
{
    struct nvme *nvme = command->nvme;
    struct ring ring;
    uint32_t dw11 = sqe_dword(sqe, 11), vector = dw11 >> 16;
    uint16_t status = parse_ring(nvme, sqe, false, &ring);
    if (status)
        return status;
    if (vector > (pci_msix_enabled(&nvme->dev) ? nvme->queues : 0))
        return NVME_INVALID_VECTOR;
    cq_create(nvme, ring.id, ring.address, ring.size, vector, dw11 & QUEUE_INTERRUPT);
    return NVME_OK;
}

static uint16_t create_sq(struct command *command, const struct sqe *sqe)
{
    struct nvme *nvme = command->nvme;
    struct ring ring;
    uint32_t cq = sqe_dword(sqe, 11) >> 16;
    uint16_t status = parse_ring(nvme, sqe, true, &ring);
    if (status)
        return status;
    if (cq > nvme->queues)
        return NVME_QUEUE_ID;
    if (!cq || !nvme->regs.cqs[cq].used)
        return NVME_NO_COMPLETION_QUEUE;
    sq_create(nvme, ring.id, ring.address, ring.size, cq);
    return NVME_OK;
}

static uint16_t delete_sq(struct command *command, const struct sqe *sqe)
{
    unsigned id = sqe_dword(sqe, 10) & 0xffff;
    struct nvme *nvme = command->nvme;
    if (!id || id >= NVME_QUEUES || !nvme->regs.sqs[id].used || nvme->sqs[id].deleter)
        return NVME_QUEUE_ID;
    sq_delete(command, id);
    return NVME_LATER;
}

static uint16_t delete_cq(struct command *command, const struct sqe *sqe)
{
    unsigned id = sqe_dword(sqe, 10) & 0xffff;
    struct nvme *nvme = command->nvme;
    if (!id || id >= NVME_QUEUES || !nvme->regs.cqs[id].used)
        return NVME_QUEUE_ID;
    for (unsigned i = 1; i < NVME_QUEUES; i++)
        if (nvme->regs.sqs[i].used && nvme->regs.sqs[i].cq == id)
            return NVME_QUEUE_IN_USE;
    cq_delete(nvme, id);
    return NVME_OK;
}

/* 5.7. */
static uint16_t set_doorbells(struct command *command, const struct sqe *sqe)
{
    struct nvme *nvme = command->nvme;
    uint64_t shadow = le64_get(sqe->dptr[0]), events = le64_get(sqe->dptr[1]);
    if (!shadow || !events || (shadow | events) % NVME_PAGE)
        return NVME_INVALID_FIELD;
    if (!in_memory(nvme, shadow, NVME_PAGE, true) || !in_memory(nvme, events, NVME_PAGE, true))
        return NVME_INVALID_FIELD;
    nvme->regs.shadow = shadow;
    nvme->regs.event_index = events;
    queues_shadow(nvme);
    nvme_doorbells(nvme);
    return NVME_OK;
}

/* --- the others ------------------------------------------------------------------------------ */

/* 5.1. Requests of a disk are not taken back: only what waits for an event is. */
static uint16_t abort_command(struct command *command, const struct sqe *sqe)
{
    enum { NOT_ABORTED = 1 };
    uint32_t dw10 = sqe_dword(sqe, 10);
    bool aborted = !(dw10 & 0xffff) && event_abort(command->nvme, (uint16_t)(dw10 >> 16));
    command->result = aborted ? 0 : NOT_ABORTED;
    return NVME_OK;
}

static const struct admin_command {
    enum admin_opcode opcode;
    uint16_t (*run)(struct command *command, const struct sqe *sqe);
} admin_commands[] = {
    { ADMIN_DELETE_SQ, delete_sq },
    { ADMIN_CREATE_SQ, create_sq },
    { ADMIN_GET_LOG, admin_get_log },
    { ADMIN_DELETE_CQ, delete_cq },
    { ADMIN_CREATE_CQ, create_cq },
    { ADMIN_IDENTIFY, admin_identify },
    { ADMIN_ABORT, abort_command },
    { ADMIN_SET_FEATURES, admin_set_features },
    { ADMIN_GET_FEATURES, admin_get_features },
    { ADMIN_ASYNC_EVENT, admin_async_event },
    { ADMIN_DOORBELLS, set_doorbells },
};

static const struct admin_command *find(unsigned opcode)
{
    for (size_t i = 0; i < G_N_ELEMENTS(admin_commands); i++)
        if (admin_commands[i].opcode == opcode)
            return &admin_commands[i];
    return NULL;
}

bool admin_supports(unsigned opcode)
{
    return find(opcode);
}

uint16_t admin_execute(struct command *command, const struct sqe *sqe)
{
    const struct admin_command *admin = find(sqe->opcode);
    if (!admin)
        return NVME_INVALID_OPCODE;
    if (sqe->flags >> SQE_PSDT_SHIFT)
        return NVME_INVALID_FIELD; /* 4.4: PRPs only */
    return admin->run(command, sqe);
}
