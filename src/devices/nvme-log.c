/* NVMe log pages (5.14) and asynchronous events (5.2). */
#include "nvme.h"

enum { DW10_RETAIN = 1 << 15, CRITICAL_TEMPERATURE = 1 << 1 };
enum { EFFECT_SUPPORTED = 1, EFFECT_CONTENT = 2, EFFECTS_IO = 1024 };

enum log_id {
    LOG_ERRORS = 0x01,
    LOG_SMART = 0x02,
    LOG_FIRMWARE = 0x03,
    LOG_CHANGED = 0x04,
    LOG_EFFECTS = 0x05,
};

static void put(uint8_t *page, unsigned at, unsigned width, uint64_t value)
{
    memcpy(page + at, &value, width); /* the host is x86-64: little-endian as the page is */
}

/* --- pages ----------------------------------------------------------------------------------- */

/* Figure 193; the newest comes first. */
static void fill_errors(const struct nvme *nvme, uint8_t *page)
{
    enum { ENTRY = 64, NO_LOCATION = 0xffff };
    const struct nvme_regs *regs = &nvme->regs;
    for (unsigned i = 0; i < MIN(regs->error_count, NVME_ERRORS); i++) {
        const struct error_regs *error = &regs->errors[(regs->error_count - 1 - i) % NVME_ERRORS];
        uint8_t *at = page + i * ENTRY;
        put(at, 0, 8, error->count);
        put(at, 8, 2, error->sq);
        put(at, 10, 2, error->cid);
        put(at, 12, 2, (uint64_t)error->status << 1);
        put(at, 14, 2, NO_LOCATION);
        put(at, 16, 8, error->lba);
        put(at, 24, 4, error->nsid);
    }
}

uint8_t critical_warning(const struct nvme *nvme)
{
    bool hot = NVME_TEMPERATURE >= nvme->regs.over, cold = NVME_TEMPERATURE <= nvme->regs.under;
    return hot || cold ? CRITICAL_TEMPERATURE : 0;
}

/* Figure 194. Only what is known: nothing wears out here. */
static void fill_smart(const struct nvme *nvme, uint8_t *page)
{
    enum { UNIT = 1000, SPARE = 100, SPARE_THRESHOLD = 10 };
    const uint64_t hour = 3600 * NS_PER_SECOND;
    const struct nvme_regs *regs = &nvme->regs;
    put(page, 0, 1, critical_warning(nvme));
    put(page, 1, 2, NVME_TEMPERATURE);
    put(page, 3, 1, SPARE);
    put(page, 4, 1, SPARE_THRESHOLD);
    put(page, 32, 8, regs->sectors_read / UNIT + (regs->sectors_read % UNIT != 0));
    put(page, 48, 8, regs->sectors_written / UNIT + (regs->sectors_written % UNIT != 0));
    put(page, 64, 8, regs->reads);
    put(page, 80, 8, regs->writes);
    put(page, 112, 8, 1); /* power cycles: this one */
    put(page, 128, 8, device_now(&nvme->dev) / hour);
    put(page, 160, 8, regs->media_errors);
    put(page, 176, 8, regs->error_count);
}

/* Figure 197: one slot, active. */
static void fill_firmware(const struct nvme *nvme, uint8_t *page)
{
    (void)nvme;
    put(page, 0, 1, 1);
    memcpy(page + 8, nvme_firmware, sizeof nvme_firmware);
}

static void fill_changed(const struct nvme *nvme, uint8_t *page)
{
    unsigned n = 0;
    for (unsigned i = 0; i < NVME_DISKS; i++)
        if (nvme->regs.changed >> i & 1)
            put(page, 4 * n++, 4, i + 1);
}

/* Figure 199. */
static void fill_effects(const struct nvme *nvme, uint8_t *page)
{
    (void)nvme;
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        bool writes;
        if (admin_supports(opcode))
            put(page, opcode * 4, 4, EFFECT_SUPPORTED);
        if (io_supports(opcode, &writes))
            put(page, EFFECTS_IO + opcode * 4, 4, EFFECT_SUPPORTED | (writes ? EFFECT_CONTENT : 0));
    }
}

static const struct log_page {
    enum log_id id;
    uint16_t size;
    void (*fill)(const struct nvme *nvme, uint8_t *page);
} pages[] = {
    { LOG_ERRORS, NVME_ERRORS * 64, fill_errors }, { LOG_SMART, 512, fill_smart },
    { LOG_FIRMWARE, 512, fill_firmware },          { LOG_CHANGED, 4096, fill_changed },
    { LOG_EFFECTS, 4096, fill_effects },
};

static const struct log_page *find_page(unsigned id)
{
    for (size_t i = 0; i < G_N_ELEMENTS(pages); i++)
        if (pages[i].id == id)
            return &pages[i];
    return NULL;
}

uint16_t log_error_entry(struct command *command, uint16_t status, uint64_t lba)
{
    struct nvme_regs *regs = &command->nvme->regs;
    status |= NVME_MORE;
    regs->media_errors++;
    regs->errors[regs->error_count % NVME_ERRORS] = (struct error_regs){
        .count = regs->error_count + 1,
        .lba = lba,
        .nsid = command->nsid,
        .sq = (uint16_t)command->sq->id,
        .cid = command->cid,
        .status = status,
    };
    regs->error_count++;
    return status;
}

/* --- events ---------------------------------------------------------------------------------- */

/* Figures 146 to 149: type, information, and the log page that lets the type be told again. */
static const struct {
    uint8_t type, information;
    enum log_id log;
} event_kinds[] = {
    [EVENT_DOORBELL_REGISTER] = { 0, 0x00, LOG_ERRORS },
    [EVENT_DOORBELL_VALUE] = { 0, 0x01, LOG_ERRORS },
    [EVENT_TEMPERATURE] = { 1, 0x01, LOG_SMART },
    [EVENT_NAMESPACE] = { 2, 0x00, LOG_CHANGED },
};

void event_raise(struct nvme *nvme, enum nvme_event event)
{
    enum { WANTS_NAMESPACE = 1 << 8 };
    uint32_t wanted = feature_value(nvme, FEATURE_EVENTS);
    if ((event == EVENT_TEMPERATURE && !(wanted & CRITICAL_TEMPERATURE)) ||
        (event == EVENT_NAMESPACE && !(wanted & WANTS_NAMESPACE)))
        return;
    if (event == EVENT_DOORBELL_REGISTER || event == EVENT_DOORBELL_VALUE)
        guest_bug(&nvme->dev, "an invalid write to a doorbell");
    nvme->regs.events |= (uint8_t)(1 << event);
}

static void complete_event(struct command *command, uint32_t result, uint16_t status)
{
    command->result = result;
    command_complete(command, status);
}

void events_tell(struct nvme *nvme)
{
    struct nvme_regs *regs = &nvme->regs;
    if (!(regs->events && regs->event_count) || !nvme_running(nvme))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(event_kinds) && regs->event_count; i++) {
        uint8_t type = (uint8_t)(1 << event_kinds[i].type);
        if (!(regs->events >> i & 1) || regs->events_masked & type)
            continue;
        struct command *command =
            command_new(nvme, &nvme->sqs[0], regs->event_cids[regs->event_count - 1]);
        if (!command)
            return;
        regs->event_count--;
        regs->event_cids[regs->event_count] = 0;
        regs->events &= (uint8_t) ~(1 << i);
        regs->events_masked |= type;
        complete_event(command,
                       event_kinds[i].type | (uint32_t)event_kinds[i].information << 8 |
                           (uint32_t)event_kinds[i].log << 16,
                       NVME_OK);
    }
}

/* The log behind them was read: events of its type are told again. */
static void unmask(struct nvme *nvme, enum log_id id)
{
    for (size_t i = 0; i < G_N_ELEMENTS(event_kinds); i++)
        if (event_kinds[i].log == id)
            nvme->regs.events_masked &= (uint8_t) ~(1 << event_kinds[i].type);
    if (id == LOG_CHANGED)
        nvme->regs.changed = 0;
}

bool event_abort(struct nvme *nvme, uint16_t cid)
{
    struct nvme_regs *regs = &nvme->regs;
    for (unsigned i = 0; i < regs->event_count; i++) {
        if (regs->event_cids[i] != cid)
            continue;
        struct command *command = command_new(nvme, &nvme->sqs[0], cid);
        if (!command)
            return false;
        regs->event_count--;
        regs->event_cids[i] = regs->event_cids[regs->event_count];
        regs->event_cids[regs->event_count] = 0;
        complete_event(command, 0, NVME_ABORTED);
        return true;
    }
    return false;
}

/* --- commands -------------------------------------------------------------------------------- */

/* It is kept as its identifier: the command's slot is not needed while it waits. */
uint16_t admin_async_event(struct command *command, const struct sqe *sqe)
{
    struct nvme *nvme = command->nvme;
    (void)sqe;
    if (nvme->regs.event_count == NVME_EVENTS)
        return NVME_EVENT_LIMIT;
    nvme->regs.event_cids[nvme->regs.event_count++] = command->cid;
    command_free(command);
    return NVME_LATER;
}

uint16_t admin_get_log(struct command *command, const struct sqe *sqe)
{
    struct nvme *nvme = command->nvme;
    uint8_t data[NVME_DATA] = { 0 };
    uint32_t dw10 = sqe_dword(sqe, 10);
    uint64_t dwords = (uint64_t)(sqe_dword(sqe, 11) & 0xffff) << 16 | dw10 >> 16;
    uint64_t offset = (uint64_t)sqe_dword(sqe, 13) << 32 | sqe_dword(sqe, 12);
    uint64_t length = (dwords + 1) * sizeof(uint32_t);
    const struct log_page *page = find_page(dw10 & 0xff);
    if (!page)
        return NVME_INVALID_LOG;
    if (offset > page->size || offset % sizeof(uint32_t))
        return NVME_INVALID_FIELD;
    if (page->id == LOG_SMART && command->nsid && command->nsid != NVME_ALL)
        return NVME_INVALID_FIELD; /* it is the controller's (LPA) */
    uint16_t status = data_map(command, sqe, length);
    if (status)
        return status;
    page->fill(nvme, data);
    status = data_copy(command, data + offset, MIN(length, page->size - offset), true);
    if (!status && !(dw10 & DW10_RETAIN))
        unmask(nvme, page->id);
    return status;
}
