/* NVMe queues (section 4): fetching commands, posting completions, doorbells and their shadow in
 * guest memory (7.13), interrupts (7.5). A turn of the loop takes at most TURN commands; queues
 * take turns (round robin, 4.13.1). What the guest wrote into an entry is copied once. */
#include "nvme.h"

#include <stdatomic.h>

enum {
    TURN = 64,    /* commands in a turn of the loop */
    BATCH = 16,   /* of one queue, before the next one's turn */
    DOORBELL = 8, /* bytes of a queue's pair of doorbells, with CAP.DSTRD 0 */
    NOT_TOLD = -1,
};

struct cqe { /* a completion queue entry (4.6) */
    le32 result, reserved;
    le16 head, sq, cid, status;
};

static struct cq *cq_of(const struct sq *sq)
{
    return &sq->nvme->cqs[sq->regs->cq];
}

/* Room for one more entry, besides those of the commands that run: a command is not fetched
 * without, so no completion ever waits. */
static bool cq_room(const struct cq *cq)
{
    unsigned size = cq->regs->size, posted = (cq->regs->tail + size - cq->regs->head) % size;
    return posted + cq->owed + 1 < size;
}

static void sq_list(struct sq *sq)
{
    struct nvme *nvme = sq->nvme;
    if (sq->listed || sq->deleter || sq->regs->head == sq->regs->tail)
        return;
    sq->listed = true;
    sq->next = NULL;
    *nvme->busy_last = sq;
    nvme->busy_last = &sq->next;
}

static struct sq *sq_next(struct nvme *nvme)
{
    struct sq *sq = nvme->busy;
    nvme->busy = sq->next;
    if (!nvme->busy)
        nvme->busy_last = &nvme->busy;
    sq->listed = false;
    return sq;
}

void queues_wake(struct nvme *nvme)
{
    for (unsigned i = 0; i <= nvme->top; i++)
        if (nvme->sqs[i].regs->used)
            sq_list(&nvme->sqs[i]);
    loop_wake(&nvme->source);
}

/* --- commands -------------------------------------------------------------------------------- */

struct command *command_new(struct nvme *nvme, struct sq *sq, uint16_t cid)
{
    struct command *command = nvme->free_commands;
    struct cq *cq = cq_of(sq);
    if (!cq_room(cq)) {
        cq->blocked = true;
        return NULL;
    }
    if (command) {
        nvme->free_commands = command->next;
    } else if (nvme->commands_used < NVME_COMMANDS) {
        command = &nvme->commands[nvme->commands_used++];
    } else {
        nvme->starved = true;
        return NULL;
    }
    command->nvme = nvme;
    command->sq = sq;
    command->table = NULL;
    command->range = command->small;
    command->ranges = 0;
    command->room = NVME_SMALL;
    command->generation = nvme->generation;
    command->result = 0;
    command->nsid = 0;
    command->cid = cid;
    command->stepping = STEP_NONE;
    sq->commands++;
    cq->owed++;
    return command;
}

bool command_table(struct command *command)
{
    struct nvme *nvme = command->nvme;
    struct table *table = nvme->free_tables;
    if (command->table)
        return true;
    if (table)
        nvme->free_tables = table->next;
    else if (nvme->tables_used < NVME_TABLES)
        table = &nvme->tables[nvme->tables_used++];
    else
        return false;
    command->table = table;
    command->range = table->ranges;
    command->room = NVME_RANGES;
    return true;
}

static void release(struct command *command)
{
    struct nvme *nvme = command->nvme;
    if (command->table) {
        command->table->next = nvme->free_tables;
        nvme->free_tables = command->table;
    }
    command->table = NULL;
    if (command->piece)
        nvme->pieces--;
    g_clear_pointer(&command->piece, g_free);
    command->next = nvme->free_commands;
    nvme->free_commands = command;
}

/* Delete I/O Submission Queue ends when nothing of the queue is left (5.6). */
static void sq_deleted(struct sq *sq)
{
    struct command *deleter = sq->deleter;
    sq->deleter = NULL;
    *sq->regs = (struct sq_regs){ .used = false };
    queues_count(sq->nvme);
    command_complete(deleter, NVME_OK);
}

void command_free(struct command *command)
{
    struct nvme *nvme = command->nvme;
    struct sq *sq = command->sq;
    release(command);
    if (command->generation != nvme->generation)
        return; /* its queue is not the one it was */
    sq->commands--;
    cq_of(sq)->owed--;
    if (nvme->starved) {
        nvme->starved = false;
        queues_wake(nvme);
    }
    if (sq->deleter && !sq->commands)
        sq_deleted(sq);
}

void command_submit(struct command *command)
{
    struct nvme *nvme = command->nvme;
    nvme->in_flight++;
    nvme->kicks |= 1u << command->disk;
    disk_submit(nvme->disks[command->disk], &command->request);
}

/* --- completions ----------------------------------------------------------------------------- */

/* There are new entries. INTx shows it now; a message waits for those that end together. */
static void note(struct cq *cq)
{
    struct nvme *nvme = cq->nvme;
    if (cq->regs->interrupt && !(nvme->regs.intms & 1) && !pci_msix_enabled(&nvme->dev))
        pci_interrupt(&nvme->dev, true);
    if (cq->noted)
        return;
    cq->noted = true;
    cq->next = nvme->noted;
    nvme->noted = cq;
}

/* The entry goes to memory as one aligned store of 16 bytes, so the phase is never ahead of the
 * rest. */
void command_complete(struct command *command, uint16_t status)
{
    struct cq *cq = cq_of(command->sq);
    struct cq_regs *regs = cq->regs;
    struct cqe cqe = {
        .result = le32_of(command->result),
        .head = le16_of(command->sq->regs->head),
        .sq = le16_of((uint16_t)command->sq->id),
        .cid = le16_of(command->cid),
        .status = le16_of((uint16_t)(status << 1 | regs->phase)),
    };
    if (pci_write(&cq->nvme->dev, GPA(regs->address + regs->tail * sizeof cqe), &cqe, sizeof cqe)) {
        regs->tail = (uint16_t)((regs->tail + 1u) % regs->size);
        regs->phase ^= regs->tail == 0;
        note(cq);
    } else {
        nvme_fatal(cq->nvme, "a completion queue is not in memory");
    }
    command_free(command);
}

void queues_level(struct nvme *nvme)
{
    bool level = false;
    for (unsigned i = 0; i < NVME_QUEUES && !level; i++) {
        const struct cq_regs *regs = &nvme->regs.cqs[i];
        level = regs->used && regs->interrupt && regs->head != regs->tail;
    }
    pci_interrupt(&nvme->dev, level && !(nvme->regs.intms & 1) && !pci_msix_enabled(&nvme->dev));
}

void queues_interrupt(struct nvme *nvme)
{
    bool msix = pci_msix_enabled(&nvme->dev);
    while (nvme->noted) {
        struct cq *cq = nvme->noted;
        nvme->noted = cq->next;
        cq->noted = false;
        if (msix && cq->regs->used && cq->regs->interrupt)
            pci_msix_notify(&nvme->dev, cq->regs->vector);
    }
}

void queues_loaded(struct nvme *nvme)
{
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        if (nvme->regs.cqs[i].used && nvme->regs.cqs[i].head != nvme->regs.cqs[i].tail)
            note(&nvme->cqs[i]); /* its message may not have been sent: one too many does no harm */
    queues_count(nvme);
    queues_level(nvme);
    queues_wake(nvme);
}

/* --- doorbells ------------------------------------------------------------------------------- */

/* False when the value is none that a driver may write. */
static bool sq_moved(struct sq *sq, uint32_t tail)
{
    if (tail >= sq->regs->size) {
        event_raise(sq->nvme, EVENT_DOORBELL_VALUE);
        return false;
    }
    sq->regs->tail = (uint16_t)tail;
    sq_list(sq);
    return true;
}

static bool cq_moved(struct cq *cq, uint32_t head)
{
    struct cq_regs *regs = cq->regs;
    unsigned size = regs->size, posted = (regs->tail + size - regs->head) % size;
    if (head >= size || (head + size - regs->head) % size > posted) {
        event_raise(cq->nvme, EVENT_DOORBELL_VALUE);
        return false;
    }
    regs->head = (uint16_t)head;
    if (cq->blocked) {
        cq->blocked = false;
        queues_wake(cq->nvme);
    }
    if (!pci_msix_enabled(&cq->nvme->dev))
        queues_level(cq->nvme);
    return true;
}

void sq_doorbell(struct nvme *nvme, unsigned id, uint32_t tail)
{
    if (id >= NVME_QUEUES || !nvme->sqs[id].regs->used)
        event_raise(nvme, EVENT_DOORBELL_REGISTER);
    else
        sq_moved(&nvme->sqs[id], tail);
    loop_wake(&nvme->source);
}

void cq_doorbell(struct nvme *nvme, unsigned id, uint32_t head)
{
    if (id >= NVME_QUEUES || !nvme->cqs[id].regs->used)
        event_raise(nvme, EVENT_DOORBELL_REGISTER);
    else if (cq_moved(&nvme->cqs[id], head) && !nvme->noted && !nvme->busy)
        return;
    loop_wake(&nvme->source);
}

/* The admin queue's doorbells stay registers: drivers do not shadow them. */
bool queues_look(struct nvme *nvme)
{
    struct {
        le32 tail, head;
    } shadow[NVME_QUEUES];
    bool moved = false;
    if (!nvme->regs.shadow || !nvme->top || !nvme_running(nvme))
        return false;
    if (!pci_read(&nvme->dev, GPA(nvme->regs.shadow), shadow, (nvme->top + 1) * sizeof shadow[0])) {
        nvme_fatal(nvme, "the shadow doorbells are not in memory");
        return false;
    }
    for (unsigned i = 1; i <= nvme->top; i++) {
        uint32_t tail = le32_get(shadow[i].tail), head = le32_get(shadow[i].head);
        if (nvme->cqs[i].regs->used && head != nvme->cqs[i].regs->head)
            moved |= cq_moved(&nvme->cqs[i], head);
        if (nvme->sqs[i].regs->used && tail != nvme->sqs[i].regs->tail)
            moved |= sq_moved(&nvme->sqs[i], tail);
    }
    return moved;
}

static void ask(struct nvme *nvme, unsigned doorbell, uint32_t *told, uint32_t value)
{
    le32 event = le32_of(value);
    if (*told == value)
        return;
    *told = value;
    pci_write(&nvme->dev, GPA(nvme->regs.event_index + doorbell * sizeof event), &event,
              sizeof event);
}

/* The driver rings when a doorbell passes its EventIdx. While the loop polls, that lies behind.
 * Heads are of interest where a queue is full, and for the level of INTx. */
void queues_ask(struct nvme *nvme)
{
    bool msix = pci_msix_enabled(&nvme->dev);
    if (!nvme->regs.shadow || !nvme_running(nvme))
        return;
    for (unsigned i = 1; i <= nvme->top; i++) {
        struct sq *sq = &nvme->sqs[i];
        struct cq *cq = &nvme->cqs[i];
        if (sq->regs->used)
            ask(nvme, 2 * i, &sq->told, sq->regs->tail);
        if (cq->regs->used && (cq->blocked || !msix))
            ask(nvme, 2 * i + 1, &cq->told, cq->regs->head);
    }
    atomic_thread_fence(memory_order_seq_cst); /* before the doorbells are looked at again */
}

/* A shadow doorbell starts with the value of its register. */
static void start_shadow(struct nvme *nvme, unsigned doorbell, uint32_t *told, uint32_t value)
{
    le32 start = le32_of(value);
    if (!nvme->regs.shadow || doorbell < 2)
        return;
    pci_write(&nvme->dev, GPA(nvme->regs.shadow + doorbell * sizeof start), &start, sizeof start);
    *told = (uint32_t)NOT_TOLD;
    ask(nvme, doorbell, told, value);
}

void queues_shadow(struct nvme *nvme)
{
    for (unsigned i = 1; i <= nvme->top; i++) {
        if (nvme->sqs[i].regs->used)
            start_shadow(nvme, 2 * i, &nvme->sqs[i].told, nvme->sqs[i].regs->tail);
        if (nvme->cqs[i].regs->used)
            start_shadow(nvme, 2 * i + 1, &nvme->cqs[i].told, nvme->cqs[i].regs->head);
    }
}

/* --- fetching -------------------------------------------------------------------------------- */

/* False when it must be fetched again later. */
static bool execute(struct command *command, const struct sqe *sqe)
{
    uint16_t status = NVME_INVALID_FIELD;
    command->nsid = le32_get(sqe->nsid);
    if (!(sqe->flags & SQE_FUSED))
        status = command->sq->id ? io_execute(command, sqe) : admin_execute(command, sqe);
    if (status == NVME_BUSY) {
        command->sq->commands--; /* no command_free: that wakes who waits, which is this one */
        cq_of(command->sq)->owed--;
        release(command);
        return false;
    }
    if (status != NVME_LATER)
        command_complete(command, status);
    return true;
}

/* At most `max` commands; how many there were. */
static unsigned serve(struct sq *sq, unsigned max)
{
    struct nvme *nvme = sq->nvme;
    struct sq_regs *regs = sq->regs;
    struct sqe batch[BATCH];
    unsigned waiting = (regs->tail + (unsigned)regs->size - regs->head) % regs->size;
    unsigned n = MIN(MIN(waiting, max), MIN(BATCH, (unsigned)(regs->size - regs->head)));
    if (!pci_read(&nvme->dev, GPA(regs->address + regs->head * sizeof batch[0]), batch,
                  n * sizeof batch[0])) {
        nvme_fatal(nvme, "a submission queue is not in memory");
        return 0;
    }
    for (unsigned i = 0; i < n; i++) {
        uint16_t head = regs->head;
        struct command *command =
            nvme_running(nvme) ? command_new(nvme, sq, le16_get(batch[i].cid)) : NULL;
        if (!command)
            return i;
        regs->head = (uint16_t)((head + 1u) % regs->size);
        if (!execute(command, &batch[i])) {
            regs->head = head;
            nvme->starved = true;
            return i;
        }
    }
    return n;
}

bool queues_turn(struct nvme *nvme)
{
    for (unsigned budget = TURN; budget && nvme->busy && nvme_running(nvme);) {
        struct sq *sq = sq_next(nvme);
        if (sq->deleter || !sq->regs->used)
            continue;
        unsigned done = serve(sq, budget);
        budget -= done;
        if (done)
            sq_list(sq);
    }
    events_tell(nvme);
    for (unsigned i = 0; nvme->kicks; i++, nvme->kicks >>= 1)
        if (nvme->kicks & 1)
            disk_kick(nvme->disks[i]);
    queues_interrupt(nvme);
    return nvme->busy && nvme_running(nvme);
}

/* --- life ------------------------------------------------------------------------------------ */

void queues_init(struct nvme *nvme)
{
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        nvme->sqs[i] = (struct sq){ .nvme = nvme, .regs = &nvme->regs.sqs[i], .id = i };
        nvme->cqs[i] = (struct cq){ .nvme = nvme, .regs = &nvme->regs.cqs[i], .id = i };
    }
    nvme->busy_last = &nvme->busy;
    /* Touched as they are used: an idle controller has no pages of them. */
    nvme->commands = g_new0(struct command, NVME_COMMANDS);
    nvme->tables = g_new0(struct table, NVME_TABLES);
}

void queues_finish(struct nvme *nvme)
{
    g_free(nvme->commands);
    g_free(nvme->tables);
}

void queues_forget(struct nvme *nvme)
{
    nvme->generation++;
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        struct sq *sq = &nvme->sqs[i];
        struct cq *cq = &nvme->cqs[i];
        if (sq->deleter)
            release(sq->deleter);
        sq->deleter = NULL;
        sq->commands = cq->owed = 0;
        sq->listed = cq->noted = cq->blocked = false;
        sq->told = cq->told = (uint32_t)NOT_TOLD;
    }
    nvme->busy = NULL;
    nvme->busy_last = &nvme->busy;
    nvme->noted = NULL;
    nvme->starved = false;
}

/* Which queues there are has changed. */
void queues_count(struct nvme *nvme)
{
    nvme->top = 0;
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        if (nvme->regs.sqs[i].used || nvme->regs.cqs[i].used)
            nvme->top = i;
    nvme_doorbells(nvme);
}

void sq_create(struct nvme *nvme, unsigned id, uint64_t address, unsigned size, unsigned cq)
{
    nvme->regs.sqs[id] = (struct sq_regs){
        .address = address, .size = (uint16_t)size, .cq = (uint16_t)cq, .used = true
    };
    queues_count(nvme);
    start_shadow(nvme, 2 * id, &nvme->sqs[id].told, 0);
}

void cq_create(struct nvme *nvme, unsigned id, uint64_t address, unsigned size, unsigned vector,
               bool interrupt)
{
    nvme->regs.cqs[id] = (struct cq_regs){
        .address = address,
        .size = (uint16_t)size,
        .vector = (uint16_t)vector,
        .used = true,
        .phase = true,
        .interrupt = interrupt,
    };
    queues_count(nvme);
    start_shadow(nvme, 2 * id + 1, &nvme->cqs[id].told, 0);
}

void sq_delete(struct command *command, unsigned id)
{
    struct sq *sq = &command->nvme->sqs[id];
    sq->deleter = command;
    if (!sq->commands)
        sq_deleted(sq);
}

void cq_delete(struct nvme *nvme, unsigned id)
{
    nvme->regs.cqs[id] = (struct cq_regs){ .used = false };
    queues_count(nvme);
    queues_level(nvme);
}
