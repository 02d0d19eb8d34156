/* NVMe features (5.21.1): what Set Features and Get Features know. None can be saved. */
#include "nvme.h"

enum {
    FID_ARBITRATION = 0x01,
    FID_POWER = 0x02,
    FID_TEMPERATURE = 0x04,
    FID_ERROR_RECOVERY = 0x05,
    FID_WRITE_CACHE = 0x06,
    FID_QUEUES = 0x07,
    FID_COALESCING = 0x08,
    FID_VECTOR = 0x09,
    FID_ATOMICITY = 0x0a,
    FID_EVENTS = 0x0b,
    FID_TIMESTAMP = 0x0e,
};
enum select { SELECT_CURRENT, SELECT_DEFAULT, SELECT_SAVED, SELECT_CAPABILITIES };
enum { CAPABLE_NAMESPACE = 2, CAPABLE_CHANGE = 4 };
enum { WARNING_TEMPERATURE = 343 };
#define DW10_SAVE UINT32_C(0x80000000)

/* Those that are a value the guest may set and read, by enum of nvme.h. */
static const struct plain {
    uint8_t id;
    uint32_t mask, preset;
} plain[NVME_FEATURES] = {
    [FEATURE_ARBITRATION] = { FID_ARBITRATION, 0xffffff07, 0x07 }, /* no limit to a burst */
    [FEATURE_POWER] = { FID_POWER, 0xff, 0 },
    [FEATURE_WRITE_CACHE] = { FID_WRITE_CACHE, 1, 1 },
    [FEATURE_COALESCING] = { FID_COALESCING, 0xffff, 0 },
    [FEATURE_ATOMICITY] = { FID_ATOMICITY, 1, 0 },
    [FEATURE_EVENTS] = { FID_EVENTS, 0x11f, 0x11f },
};

uint32_t feature_value(const struct nvme *nvme, unsigned feature)
{
    return nvme->regs.features[feature];
}

void features_reset(struct nvme *nvme)
{
    struct nvme_regs *regs = &nvme->regs;
    for (unsigned i = 0; i < NVME_FEATURES; i++)
        regs->features[i] = plain[i].preset;
    memset(regs->tler, 0, sizeof regs->tler);
    memset(regs->plain_vectors, 0, sizeof regs->plain_vectors);
    regs->over = WARNING_TEMPERATURE;
    regs->under = 0;
    regs->timestamp = 0;
    regs->timestamp_at = device_now(&nvme->dev);
    regs->timestamp_set = false;
}

/* --- features with rules of their own -------------------------------------------------------- */

/* 5.21.1.4. Only the composite temperature; threshold select 15 is all there are, for Set. */
static uint16_t *threshold(struct nvme *nvme, uint32_t dw11, bool set)
{
    enum { COMPOSITE = 0, ALL = 15, OVER = 0, UNDER = 1 };
    unsigned sensor = dw11 >> 16 & 15, type = dw11 >> 20 & 3;
    if (sensor != COMPOSITE && !(set && sensor == ALL))
        return NULL;
    if (type > UNDER)
        return NULL;
    return type == OVER ? &nvme->regs.over : &nvme->regs.under;
}

static uint16_t set_temperature(struct nvme *nvme, const struct sqe *sqe, uint32_t *result)
{
    uint16_t *at = threshold(nvme, sqe_dword(sqe, 11), true);
    (void)result;
    if (!at)
        return NVME_INVALID_FIELD;
    *at = (uint16_t)sqe_dword(sqe, 11);
    if (critical_warning(nvme))
        event_raise(nvme, EVENT_TEMPERATURE);
    return NVME_OK;
}

static uint16_t get_temperature(struct nvme *nvme, const struct sqe *sqe, bool preset,
                                uint32_t *result)
{
    const uint16_t *at = threshold(nvme, sqe_dword(sqe, 11), false);
    if (!at)
        return NVME_INVALID_FIELD;
    *result = *at;
    if (preset)
        *result = at == &nvme->regs.over ? WARNING_TEMPERATURE : 0;
    return NVME_OK;
}

/* 5.21.1.5: of a namespace. */
static uint16_t set_recovery(struct nvme *nvme, const struct sqe *sqe, uint32_t *result)
{
    uint32_t nsid = le32_get(sqe->nsid), limit = sqe_dword(sqe, 11) & 0xffff;
    (void)result;
    if (nsid != NVME_ALL && (!nsid || nsid > nvme->namespaces))
        return NVME_INVALID_NAMESPACE;
    for (unsigned i = 0; i < nvme->namespaces; i++)
        if (nsid == NVME_ALL || nsid == i + 1)
            nvme->regs.tler[i] = limit;
    return NVME_OK;
}

static uint16_t get_recovery(struct nvme *nvme, const struct sqe *sqe, bool preset,
                             uint32_t *result)
{
    uint32_t nsid = le32_get(sqe->nsid);
    if (!nsid || nsid > nvme->namespaces)
        return NVME_INVALID_NAMESPACE;
    *result = preset ? 0 : nvme->regs.tler[nsid - 1];
    return NVME_OK;
}

/* 5.21.1.7: asked for before the first queue is made; the answer is what there is. */
static uint16_t get_queues(struct nvme *nvme, const struct sqe *sqe, bool preset, uint32_t *result)
{
    uint32_t n = (uint32_t)nvme->queues - 1;
    (void)sqe, (void)preset;
    *result = n << 16 | n;
    return NVME_OK;
}

static uint16_t set_queues(struct nvme *nvme, const struct sqe *sqe, uint32_t *result)
{
    enum { TOO_MANY = 0xffff };
    uint32_t dw11 = sqe_dword(sqe, 11);
    if (nvme->top)
        return NVME_SEQUENCE_ERROR;
    if ((dw11 & 0xffff) == TOO_MANY || dw11 >> 16 == TOO_MANY)
        return NVME_INVALID_FIELD;
    return get_queues(nvme, sqe, false, result);
}

/* 5.21.1.9. */
static uint16_t set_vector(struct nvme *nvme, const struct sqe *sqe, uint32_t *result)
{
    uint32_t vector = sqe_dword(sqe, 11) & 0xffff;
    (void)result;
    if (vector > nvme->queues)
        return NVME_INVALID_FIELD;
    nvme->regs.plain_vectors[vector] = sqe_dword(sqe, 11) >> 16 & 1;
    return NVME_OK;
}

static uint16_t get_vector(struct nvme *nvme, const struct sqe *sqe, bool preset, uint32_t *result)
{
    uint32_t vector = sqe_dword(sqe, 11) & 0xffff;
    if (vector > nvme->queues)
        return NVME_INVALID_FIELD;
    *result = vector | (uint32_t)(!preset && nvme->regs.plain_vectors[vector]) << 16;
    return NVME_OK;
}

static const struct special {
    uint8_t id, capabilities;
    uint16_t (*set)(struct nvme *nvme, const struct sqe *sqe, uint32_t *result);
    uint16_t (*get)(struct nvme *nvme, const struct sqe *sqe, bool preset, uint32_t *result);
} special[] = {
    { FID_TEMPERATURE, CAPABLE_CHANGE, set_temperature, get_temperature },
    { FID_ERROR_RECOVERY, CAPABLE_CHANGE | CAPABLE_NAMESPACE, set_recovery, get_recovery },
    { FID_QUEUES, CAPABLE_CHANGE, set_queues, get_queues },
    { FID_VECTOR, CAPABLE_CHANGE, set_vector, get_vector },
};

/* 5.21.1.14: 48 bits of milliseconds, and where they are from. */
static uint16_t set_timestamp(struct command *command, const struct sqe *sqe)
{
    const uint64_t mask = (UINT64_C(1) << 48) - 1;
    struct nvme_regs *regs = &command->nvme->regs;
    le64 value;
    uint16_t status = data_map(command, sqe, sizeof value);
    if (!status)
        status = data_copy(command, &value, sizeof value, false);
    if (status)
        return status;
    regs->timestamp = le64_get(value) & mask;
    regs->timestamp_at = device_now(&command->nvme->dev);
    regs->timestamp_set = true;
    return NVME_OK;
}

static uint16_t get_timestamp(struct command *command, const struct sqe *sqe, bool preset)
{
    enum { ORIGIN_SHIFT = 49, NS_PER_MS = 1000000 };
    const struct nvme_regs *regs = &command->nvme->regs;
    uint64_t passed = (device_now(&command->nvme->dev) - regs->timestamp_at) / NS_PER_MS;
    uint64_t now = ((regs->timestamp + passed) & ((UINT64_C(1) << 48) - 1)) |
                   (uint64_t)regs->timestamp_set << ORIGIN_SHIFT;
    le64 value = le64_of(preset ? 0 : now);
    uint16_t status = data_map(command, sqe, sizeof value);
    return status ? status : data_copy(command, &value, sizeof value, true);
}

/* --- commands -------------------------------------------------------------------------------- */

static const struct plain *find_plain(unsigned id)
{
    for (unsigned i = 0; i < NVME_FEATURES; i++)
        if (plain[i].id == id)
            return &plain[i];
    return NULL;
}

static const struct special *find_special(unsigned id)
{
    for (size_t i = 0; i < G_N_ELEMENTS(special); i++)
        if (special[i].id == id)
            return &special[i];
    return NULL;
}

uint16_t admin_set_features(struct command *command, const struct sqe *sqe)
{
    enum { POWER_STATE = 0x1f };
    struct nvme *nvme = command->nvme;
    unsigned id = sqe_dword(sqe, 10) & 0xff;
    uint32_t value = sqe_dword(sqe, 11);
    const struct plain *simple = find_plain(id);
    const struct special *other = find_special(id);
    if (!simple && !other && id != FID_TIMESTAMP)
        return NVME_INVALID_FIELD;
    if (sqe_dword(sqe, 10) & DW10_SAVE)
        return NVME_NOT_SAVEABLE;
    if (id == FID_TIMESTAMP)
        return set_timestamp(command, sqe);
    if (other)
        return other->set(nvme, sqe, &command->result);
    if (id == FID_POWER && value & POWER_STATE)
        return NVME_INVALID_FIELD; /* there is state 0 only */
    nvme->regs.features[simple - plain] = value & simple->mask;
    return NVME_OK;
}

uint16_t admin_get_features(struct command *command, const struct sqe *sqe)
{
    struct nvme *nvme = command->nvme;
    unsigned id = sqe_dword(sqe, 10) & 0xff, select = sqe_dword(sqe, 10) >> 8 & 7;
    const struct plain *simple = find_plain(id);
    const struct special *other = find_special(id);
    bool preset = select != SELECT_CURRENT;
    if ((!simple && !other && id != FID_TIMESTAMP) || select > SELECT_CAPABILITIES)
        return NVME_INVALID_FIELD;
    if (select == SELECT_CAPABILITIES) {
        command->result = other ? other->capabilities : CAPABLE_CHANGE;
        return NVME_OK;
    }
    if (id == FID_TIMESTAMP)
        return get_timestamp(command, sqe, preset);
    if (other)
        return other->get(nvme, sqe, preset, &command->result);
    command->result = preset ? simple->preset : nvme->regs.features[simple - plain];
    return NVME_OK;
}
