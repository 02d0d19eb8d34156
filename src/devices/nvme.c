/* NVMe controller: NVM Express Base Specification 1.4 over PCI (section and figure numbers are
 * its).
 *
 * One I/O controller with up to four namespaces, each a disk, an admin queue and up to 64 pairs of
 * I/O queues. This file is the class, the registers (section 3) and the controller's life: enabled,
 * shut down, reset. Register writes only note what is to be done; commands run on the device's
 * loop. The rest is in the files that nvme.h names. */
#include "nvme.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Registers (figure 68). */
enum {
    REG_CAP = 0x00,
    REG_CAP_HIGH = 0x04,
    REG_VS = 0x08,
    REG_INTMS = 0x0c,
    REG_INTMC = 0x10,
    REG_CC = 0x14,
    REG_CSTS = 0x1c,
    REG_AQA = 0x24,
    REG_ASQ = 0x28,
    REG_ASQ_HIGH = 0x2c,
    REG_ACQ = 0x30,
    REG_ACQ_HIGH = 0x34,
    REG_DOORBELLS = 0x1000, /* 3.1.24, 3.1.25 */
    BAR_SIZE = 0x4000,
};
/* CAP (3.1.1): contiguous queues of NVME_ENTRIES, 20 s to become ready, the NVM command set, pages
 * of 4 KiB, doorbells 4 bytes apart. */
enum { CAP_CQR = 1 << 16, CAP_TO = 40u << 24, CAP_HIGH_CSS_NVM = 1 << 5 };
enum { CC_MASK = CC_EN | CC_CSS | CC_MPS | CC_AMS | CC_SHN | 0xff << CC_IOSQES_SHIFT };
#define AQA_MASK UINT32_C(0x0fff0fff)

static const struct field sq_fields[] = {
    SAVED(struct sq_regs, address),
    SAVED_MAX(struct sq_regs, size, NVME_ENTRIES),
    SAVED_MAX(struct sq_regs, head, NVME_ENTRIES - 1),
    SAVED_MAX(struct sq_regs, tail, NVME_ENTRIES - 1),
    SAVED_MAX(struct sq_regs, cq, NVME_QUEUES - 1),
    SAVED(struct sq_regs, used),
    SAVED_PAD(struct sq_regs, pad),
    SAVED_END,
};
static const struct field cq_fields[] = {
    SAVED(struct cq_regs, address),
    SAVED_MAX(struct cq_regs, size, NVME_ENTRIES),
    SAVED_MAX(struct cq_regs, head, NVME_ENTRIES - 1),
    SAVED_MAX(struct cq_regs, tail, NVME_ENTRIES - 1),
    SAVED_MAX(struct cq_regs, vector, NVME_QUEUES - 1),
    SAVED(struct cq_regs, used),
    SAVED(struct cq_regs, phase),
    SAVED(struct cq_regs, interrupt),
    SAVED_PAD(struct cq_regs, pad),
    SAVED_END,
};
static const struct field error_fields[] = {
    SAVED(struct error_regs, count),   SAVED(struct error_regs, lba),
    SAVED(struct error_regs, nsid),    SAVED(struct error_regs, sq),
    SAVED(struct error_regs, cid),     SAVED(struct error_regs, status),
    SAVED_PAD(struct error_regs, pad), SAVED_END,
};
static const struct field nvme_fields[] = {
    SAVED_STRUCTS(struct nvme_regs, sqs, sq_fields),
    SAVED_STRUCTS(struct nvme_regs, cqs, cq_fields),
    SAVED_STRUCTS(struct nvme_regs, errors, error_fields),
    SAVED(struct nvme_regs, asq),
    SAVED(struct nvme_regs, acq),
    SAVED(struct nvme_regs, shadow),
    SAVED(struct nvme_regs, event_index),
    SAVED(struct nvme_regs, timestamp),
    SAVED(struct nvme_regs, timestamp_at),
    SAVED(struct nvme_regs, sectors_read),
    SAVED(struct nvme_regs, sectors_written),
    SAVED(struct nvme_regs, reads),
    SAVED(struct nvme_regs, writes),
    SAVED(struct nvme_regs, media_errors),
    SAVED(struct nvme_regs, error_count),
    SAVED(struct nvme_regs, cc),
    SAVED(struct nvme_regs, csts),
    SAVED(struct nvme_regs, aqa),
    SAVED(struct nvme_regs, intms),
    SAVED_ARRAY(struct nvme_regs, features),
    SAVED_ARRAY(struct nvme_regs, tler),
    SAVED(struct nvme_regs, over),
    SAVED(struct nvme_regs, under),
    SAVED_ARRAY(struct nvme_regs, event_cids),
    SAVED_MAX(struct nvme_regs, event_count, NVME_EVENTS),
    SAVED(struct nvme_regs, events),
    SAVED(struct nvme_regs, events_masked),
    SAVED(struct nvme_regs, changed),
    SAVED(struct nvme_regs, timestamp_set),
    SAVED_ARRAY(struct nvme_regs, plain_vectors),
    SAVED_PAD(struct nvme_regs, pad),
    SAVED_END,
};

/* --- the loop -------------------------------------------------------------------------------- */

static bool ready(struct loop_source *source, uint32_t events)
{
    struct nvme *nvme = source->opaque;
    (void)events;
    queues_look(nvme);
    return queues_turn(nvme);
}

static bool poll_queues(struct loop_source *source)
{
    struct nvme *nvme = source->opaque;
    bool found = queues_look(nvme);
    nvme->polling = true;
    for (unsigned i = 0; i < nvme->namespaces; i++)
        found |= nvme->disks[i] && disk_poll(nvme->disks[i]);
    nvme->polling = false;
    if (found && queues_turn(nvme))
        loop_wake(source);
    return found;
}

static bool rest(struct loop_source *source)
{
    struct nvme *nvme = source->opaque;
    queues_ask(nvme);
    return queues_look(nvme);
}

/* --- enabled, shut down, reset --------------------------------------------------------------- */

void nvme_fatal(struct nvme *nvme, const char *what)
{
    if (!(nvme->regs.csts & CSTS_CFS))
        guest_bug(&nvme->dev, "%s", what);
    nvme->regs.csts |= CSTS_CFS;
}

bool nvme_running(const struct nvme *nvme)
{
    return (nvme->regs.csts & (CSTS_RDY | CSTS_CFS | CSTS_SHST)) == CSTS_RDY && !nvme->stopping &&
           pci_master(&nvme->dev);
}

/* The doorbells of the submission queues signal the eventfd while shadow buffers tell their values;
 * a doorbell's value would be lost. Those of the admin queue and of completion queues are
 * registers. */
void nvme_doorbells(struct nvme *nvme)
{
    enum { DOORBELL_PAIR = 8 };
    const struct board *board = nvme->dev.board;
    uint64_t address = 0, wanted = 0;
    if (nvme->doorbell < 0)
        return;
    if (nvme->regs.shadow && nvme->regs.csts & CSTS_RDY && !nvme->stopping &&
        pci_bar_address(&nvme->dev, 0, &address))
        for (unsigned i = 1; i <= nvme->top; i++)
            wanted |= (uint64_t)nvme->regs.sqs[i].used << (i - 1);
    for (unsigned i = 1; i < NVME_QUEUES && nvme->rung | wanted; i++) {
        uint64_t bit = UINT64_C(1) << (i - 1);
        bool was = nvme->rung & bit, is = wanted & bit;
        if (was && (!is || nvme->doorbells != address))
            board->ops->doorbell(board->opaque, nvme->doorbells + REG_DOORBELLS + i * DOORBELL_PAIR,
                                 nvme->doorbell, false);
        else if (was)
            continue;
        nvme->rung &= ~bit;
        if (is && board->ops->doorbell(board->opaque, address + REG_DOORBELLS + i * DOORBELL_PAIR,
                                       nvme->doorbell, true))
            nvme->rung |= bit;
    }
    nvme->doorbells = address;
}

/* 7.6.1: the admin queues are what AQA, ASQ and ACQ say. */
static void start(struct nvme *nvme)
{
    struct nvme_regs *regs = &nvme->regs;
    unsigned entries_sq = (regs->aqa & 0xfff) + 1, entries_cq = (regs->aqa >> 16 & 0xfff) + 1;
    if (regs->cc & (CC_CSS | CC_MPS | CC_AMS) || entries_sq < 2 || entries_cq < 2 ||
        entries_sq > NVME_ENTRIES || entries_cq > NVME_ENTRIES) {
        nvme_fatal(nvme, "enabled with settings that are not supported");
        return;
    }
    if (!loop_add(nvme->dev.loop, &nvme->source, EPOLLIN | EPOLLET)) {
        nvme_fatal(nvme, "it has no thread");
        return;
    }
    cq_create(nvme, 0, regs->acq, entries_cq, 0, true);
    sq_create(nvme, 0, regs->asq, entries_sq, 0);
    regs->csts |= CSTS_RDY;
    pci_msix_claim(&nvme->dev);
}

/* A Controller Level Reset (7.3.2): all but AQA, ASQ and ACQ, and what counts. */
static void clear(struct nvme *nvme)
{
    struct nvme_regs *regs = &nvme->regs;
    queues_forget(nvme);
    memset(regs->sqs, 0, sizeof regs->sqs);
    memset(regs->cqs, 0, sizeof regs->cqs);
    memset(regs->event_cids, 0, sizeof regs->event_cids);
    regs->event_count = regs->events = regs->events_masked = regs->changed = 0;
    regs->shadow = regs->event_index = 0;
    regs->csts = regs->intms = 0;
    features_reset(nvme);
    queues_count(nvme);
    loop_remove(&nvme->source);
    pci_msix_release(&nvme->dev);
    pci_interrupt(&nvme->dev, false);
}

static void finish_stop(struct nvme *nvme)
{
    nvme->stopping = false;
    clear(nvme);
    if (nvme->regs.cc & CC_EN)
        start(nvme);
}

/* CSTS.RDY stays 1 until nothing can reach guest memory any more. */
static void stop(struct nvme *nvme)
{
    queues_forget(nvme);
    nvme->stopping = true;
    nvme_doorbells(nvme);
    if (!nvme->in_flight)
        finish_stop(nvme);
}

static void flush_done(struct disk_request *request, int error)
{
    struct nvme *nvme = request->owner;
    (void)error; /* the drive is going away: nobody could be told */
    nvme->in_flight--;
    nvme_drained(nvme);
}

/* 7.6.2: when nothing is in flight, each disk is flushed in turn. */
static void shut_down(struct nvme *nvme)
{
    while (nvme->flushed < NVME_DISKS && !nvme->disks[nvme->flushed])
        nvme->flushed++;
    if (nvme->flushed == NVME_DISKS) {
        nvme->regs.csts = (nvme->regs.csts & ~(uint32_t)CSTS_SHST) | CSTS_SHUT;
        return;
    }
    struct disk *disk = nvme->disks[nvme->flushed++];
    nvme->flush = (struct disk_request){ .op = DISK_FLUSH, .done = flush_done, .owner = nvme };
    nvme->in_flight++;
    disk_submit(disk, &nvme->flush);
    disk_kick(disk);
}

void nvme_drained(struct nvme *nvme)
{
    if (nvme->in_flight)
        return;
    if (nvme->stopping)
        finish_stop(nvme);
    else if ((nvme->regs.csts & CSTS_SHST) == CSTS_SHUTTING)
        shut_down(nvme);
}

static void write_cc(struct nvme *nvme, uint32_t value)
{
    struct nvme_regs *regs = &nvme->regs;
    uint32_t was = regs->cc;
    regs->cc = value & CC_MASK;
    if (was & ~value & CC_EN) {
        stop(nvme);
    } else if (value & ~was & CC_EN && !nvme->stopping) {
        start(nvme);
    }
    bool asks = value & CC_EN && regs->cc & CC_SHN && !(was & CC_SHN);
    if (asks && regs->csts & CSTS_RDY && !nvme->stopping && !(regs->csts & CSTS_SHST)) {
        regs->csts |= CSTS_SHUTTING;
        nvme->flushed = 0;
        nvme_drained(nvme);
    }
}

/* --- registers ------------------------------------------------------------------------------- */

static uint64_t nvme_read(struct device *dev, uint64_t offset, unsigned width)
{
    const struct nvme_regs *regs = &((struct nvme *)dev)->regs;
    (void)width;
    switch (offset) {
    case REG_CAP:
        return (NVME_ENTRIES - 1) | CAP_CQR | CAP_TO;
    case REG_CAP_HIGH:
        return CAP_HIGH_CSS_NVM;
    case REG_VS:
        return NVME_VERSION;
    case REG_INTMS:
    case REG_INTMC:
        return regs->intms;
    case REG_CC:
        return regs->cc;
    case REG_CSTS:
        return regs->csts;
    case REG_AQA:
        return regs->aqa;
    case REG_ASQ:
        return (uint32_t)regs->asq;
    case REG_ASQ_HIGH:
        return regs->asq >> 32;
    case REG_ACQ:
        return (uint32_t)regs->acq;
    case REG_ACQ_HIGH:
        return regs->acq >> 32;
    }
    return 0;
}

static void set_half(uint64_t *at, bool high, uint32_t value)
{
    *at = high ? (*at & UINT32_MAX) | (uint64_t)value << 32 : (*at & ~(uint64_t)UINT32_MAX) | value;
    *at &= ~(uint64_t)(NVME_PAGE - 1);
}

static void write_doorbell(struct nvme *nvme, uint64_t offset, uint32_t value)
{
    unsigned id = (unsigned)(offset - REG_DOORBELLS) / 8;
    if (!nvme_running(nvme))
        return;
    if (offset % 8)
        cq_doorbell(nvme, id, value);
    else
        sq_doorbell(nvme, id, value);
}

static void nvme_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct nvme *nvme = (struct nvme *)dev;
    struct nvme_regs *regs = &nvme->regs;
    uint32_t v = (uint32_t)value;
    (void)width;
    if (offset >= REG_DOORBELLS) {
        write_doorbell(nvme, offset, v);
        return;
    }
    switch (offset) {
    case REG_INTMS:
    case REG_INTMC:
        regs->intms = offset == REG_INTMS ? regs->intms | v : regs->intms & ~v;
        queues_level(nvme);
        break;
    case REG_CC:
        write_cc(nvme, v);
        break;
    case REG_AQA:
        regs->aqa = v & AQA_MASK;
        break;
    case REG_ASQ:
    case REG_ASQ_HIGH:
        set_half(&regs->asq, offset == REG_ASQ_HIGH, v);
        break;
    case REG_ACQ:
    case REG_ACQ_HIGH:
        set_half(&regs->acq, offset == REG_ACQ_HIGH, v);
        break;
    }
}

/* The BAR, bus mastering or MSI-X may have changed. */
static void nvme_config_written(struct device *dev, unsigned offset, unsigned length)
{
    struct nvme *nvme = (struct nvme *)dev;
    (void)offset, (void)length;
    nvme_doorbells(nvme);
    queues_level(nvme);
    if (nvme_running(nvme))
        queues_wake(nvme);
}

/* --- life ------------------------------------------------------------------------------------ */

static bool nvme_init(struct device *dev, GError **error)
{
    struct nvme *nvme = (struct nvme *)dev;
    (void)error;
    nvme->doorbell = dev->board->ops->doorbell ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    nvme->source = (struct loop_source){
        .fd = nvme->doorbell,
        .lock = &dev->lock,
        .opaque = nvme,
        .ready = ready,
        .poll = poll_queues,
        .rest = rest,
    };
    queues_init(nvme);
    identify_init(nvme);
    pci_msix_vectors(dev, (unsigned)nvme->queues + 1);
    return true;
}

static void nvme_reset(struct device *dev)
{
    struct nvme *nvme = (struct nvme *)dev;
    struct nvme_regs *regs = &nvme->regs;
    nvme->stopping = false;
    clear(nvme);
    regs->cc = regs->aqa = 0;
    regs->asq = regs->acq = 0;
    memset(regs->errors, 0, sizeof regs->errors);
    regs->sectors_read = regs->sectors_written = regs->reads = regs->writes = 0;
    regs->media_errors = regs->error_count = 0;
}

static bool queues_sound(const struct nvme_regs *regs)
{
    if (!regs->sqs[0].used || !regs->cqs[0].used || regs->sqs[0].cq)
        return false;
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        const struct sq_regs *sq = &regs->sqs[i];
        const struct cq_regs *cq = &regs->cqs[i];
        if (sq->used && (sq->size < 2 || sq->head >= sq->size || sq->tail >= sq->size ||
                         !regs->cqs[sq->cq].used || sq->address % NVME_PAGE))
            return false;
        if (cq->used && (cq->size < 2 || cq->head >= cq->size || cq->tail >= cq->size ||
                         cq->address % NVME_PAGE))
            return false;
    }
    return true;
}

/* What no guest could have made is a controller that failed. */
static void nvme_loaded(struct device *dev)
{
    struct nvme *nvme = (struct nvme *)dev;
    struct nvme_regs *regs = &nvme->regs;
    regs->cc &= CC_MASK;
    regs->csts &= CSTS_RDY | CSTS_CFS | CSTS_SHST;
    regs->aqa &= AQA_MASK;
    regs->asq &= ~(uint64_t)(NVME_PAGE - 1);
    regs->acq &= ~(uint64_t)(NVME_PAGE - 1);
    regs->shadow &= ~(uint64_t)(NVME_PAGE - 1);
    regs->event_index &= ~(uint64_t)(NVME_PAGE - 1);
    queues_forget(nvme);
    nvme->stopping = false; /* what ran here before is forgotten */
    loop_remove(&nvme->source);
    pci_msix_release(dev);
    if (!(regs->csts & CSTS_RDY) || !(regs->cc & CC_EN) || !queues_sound(regs)) {
        memset(regs->sqs, 0, sizeof regs->sqs);
        memset(regs->cqs, 0, sizeof regs->cqs);
        if (regs->csts & CSTS_RDY)
            regs->csts = CSTS_RDY | CSTS_CFS;
    } else if (loop_add(dev->loop, &nvme->source, EPOLLIN | EPOLLET)) {
        pci_msix_claim(dev);
    } else {
        nvme_fatal(nvme, "it has no thread");
    }
    queues_loaded(nvme);
    nvme->flushed = 0;
    nvme_drained(nvme);
}

static void nvme_finish(struct device *dev)
{
    struct nvme *nvme = (struct nvme *)dev;
    nvme->stopping = true;
    nvme_doorbells(nvme);
    if (nvme->doorbell >= 0)
        close(nvme->doorbell);
    queues_finish(nvme);
}

static void nvme_disk_resized(struct device *dev, unsigned index)
{
    struct nvme *nvme = (struct nvme *)dev;
    if (index >= nvme->namespaces || !(nvme->regs.csts & CSTS_RDY))
        return;
    nvme->regs.changed |= (uint8_t)(1 << index);
    event_raise(nvme, EVENT_NAMESPACE);
    loop_wake(&nvme->source);
}

const struct device_class nvme_class = {
    .name = "nvme",
    .help = "NVMe controller with up to four disks (NVM Express 1.4)",
    .size = sizeof(struct nvme),
    .regions =
        (const struct region[]){
            { REGION_BAR, 0, BAR_SIZE, W32, nvme_read, nvme_write },
            { .kind = REGION_END },
        },
    .options =
        (const struct option[]){
            { "queues", "pairs of I/O queues", OPTION_UINT, offsetof(struct nvme, queues), "64", 1,
              NVME_QUEUES - 1 },
            { "serial", "serial number; empty: made of the first image's identity", OPTION_STRING,
              offsetof(struct nvme, serial), "" },
            { .name = NULL },
        },
    .plugs =
        (const struct plug[]){
            { "disk0", PLUG_DISK, offsetof(struct nvme, disks[0]) },
            { "disk1", PLUG_DISK, offsetof(struct nvme, disks[1]) },
            { "disk2", PLUG_DISK, offsetof(struct nvme, disks[2]) },
            { "disk3", PLUG_DISK, offsetof(struct nvme, disks[3]) },
            { .name = NULL },
        },
    .state = STATE(struct nvme, regs, 1, nvme_fields),
    .pci =
        &(const struct pci_class){
            .vendor = NVME_VENDOR,
            .device = NVME_DEVICE,
            .class_code = 0x010802,
            .revision = 0x02,
            .subsystem_vendor = 0x1af4,
            .subsystem = 0x1100,
            .interrupt_pin = 1,
            .bars = { [0] = BAR_MEMORY64, [4] = BAR_MEMORY32 },
            .msix_bar = 4,
            .config_written = nvme_config_written,
        },
    .flags = CLASS_LOOP,
    .init = nvme_init,
    .reset = nvme_reset,
    .loaded = nvme_loaded,
    .finish = nvme_finish,
    .disk_resized = nvme_disk_resized,
};
