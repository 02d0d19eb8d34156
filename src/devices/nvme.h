/* What the files of the NVMe controller share. Section and figure numbers in them are of the NVM
 * Express Base Specification, revision 1.4.
 *
 * nvme.c: the class, registers, life. nvme-queue.c: queues and the commands in them. nvme-data.c:
 * PRPs and SGLs. nvme-admin.c, nvme-feature.c, nvme-identify.c, nvme-log.c: the admin command set.
 * nvme-io.c: the NVM command set. All run with the device's lock held: register accesses on vCPU
 * threads, queues on the device's loop, completions there or on the disks' threads. */
#pragma once
#include "base/loop.h"
#include "block/disk.h"
#include "bus/pci.h"

#include <string.h>

enum {
    NVME_QUEUES = 65, /* the admin queue and one pair for each of 64 vCPUs */
    NVME_ENTRIES = 1024,
    NVME_DISKS = 4,
    NVME_EVENTS = 4, /* Asynchronous Event Requests that may wait */
    NVME_ERRORS = 8, /* entries of the error log */
    NVME_COMMANDS = 1024,
    NVME_PAGE = 4096,
    NVME_TRANSFER = 1 << 20,                     /* at most, for a command: MDTS */
    NVME_RANGES = NVME_TRANSFER / NVME_PAGE + 1, /* pages that such a transfer touches */
    NVME_SMALL = 9,                              /* ranges without a table: 32 KiB */
    NVME_TABLES = 64,                            /* of NVME_RANGES, in use at once */
    NVME_SPLITS = 3,                             /* slots of guest memory end inside a range */
    NVME_PIECE = 64 << 10,                       /* that a Compare reads at once */
    NVME_PIECES = 16,                            /* Compares at once */
    NVME_DATA = 4096,                            /* bytes of an admin command's answer */
    NVME_VERSION = 0x00010400,
    /* Drivers go by the class code. The ids that others gave to their NVMe controllers, in machines
     * or in metal, would do, but systems have lists of the faults of those: for QEMU's 1b36:0010
     * Linux ignores the namespaces' UUIDs ("bogus") and does not use Write Zeroes. This one is of
     * the range 1af4:10f0 to 10ff, which its owner leaves to virtual devices without registration
     * until they are given one of their own. */
    NVME_VENDOR = 0x1af4,
    NVME_DEVICE = 0x10f0,
};
#define NVME_ALL UINT32_MAX /* the broadcast value of NSID */

/* Status fields (4.6.1): code, type << 8, more << 13, do not retry << 14. */
enum nvme_status {
    NVME_OK = 0,
    NVME_DATA_ERROR = 0x0004,
    NVME_INTERNAL_ERROR = 0x0006,
    NVME_ABORTED = 0x0007,
    NVME_INVALID_OPCODE = 0x4001,
    NVME_INVALID_FIELD = 0x4002,
    NVME_INVALID_NAMESPACE = 0x400b,
    NVME_SEQUENCE_ERROR = 0x400c,
    NVME_SGL_SEGMENT = 0x400d,
    NVME_SGL_COUNT = 0x400e,
    NVME_SGL_LENGTH = 0x400f,
    NVME_SGL_TYPE = 0x4011,
    NVME_PRP_OFFSET = 0x4013,
    NVME_WRITE_PROTECTED = 0x4020,
    NVME_LBA_RANGE = 0x4080,
    NVME_NO_COMPLETION_QUEUE = 0x4100,
    NVME_QUEUE_ID = 0x4101,
    NVME_QUEUE_SIZE = 0x4102,
    NVME_EVENT_LIMIT = 0x4105,
    NVME_INVALID_VECTOR = 0x4108,
    NVME_INVALID_LOG = 0x4109,
    NVME_QUEUE_IN_USE = 0x410c,
    NVME_NOT_SAVEABLE = 0x410d,
    NVME_NOT_CHANGEABLE = 0x410e,
    NVME_WRITE_FAULT = 0x0280,
    NVME_READ_ERROR = 0x0281,
    NVME_COMPARE_FAILURE = 0x0285,
    NVME_MORE = 0x2000, /* the error log has an entry */

    NVME_LATER = 0xfffe, /* of a handler: the command is answered, or was taken, by itself */
    NVME_BUSY = 0xffff,  /* of a handler: nothing was done for lack of a table; fetch it again */
};

/* CC (3.1.5) and CSTS (3.1.6). */
enum {
    CC_EN = 1,
    CC_CSS = 7 << 4,
    CC_MPS = 15 << 7,
    CC_AMS = 7 << 11,
    CC_SHN = 3 << 14,
    CC_IOSQES_SHIFT = 16,
    CC_IOCQES_SHIFT = 20,
    CSTS_RDY = 1,
    CSTS_CFS = 2,
    CSTS_SHST = 3 << 2,
    CSTS_SHUTTING = 1 << 2,
    CSTS_SHUT = 2 << 2,
};
enum { NVME_SQE_LOG = 6, NVME_CQE_LOG = 4 };

/* A submission queue entry (figure 104). */
struct sqe {
    uint8_t opcode, flags;
    le16 cid;
    le32 nsid, cdw2, cdw3;
    le64 mptr, dptr[2];
    le32 cdw[6]; /* command dwords 10 to 15 */
};
enum { SQE_FUSED = 3, SQE_PSDT_SHIFT = 6 };

static inline uint32_t sqe_dword(const struct sqe *sqe, unsigned n) /* n: 10 to 15 */
{
    return le32_get(sqe->cdw[n - 10]);
}

struct sq_regs {
    uint64_t address;
    uint16_t size, head, tail, cq;
    bool used;
    uint8_t pad[7];
};
struct cq_regs {
    uint64_t address;
    uint16_t size, head, tail, vector;
    bool used, phase, interrupt;
    uint8_t pad[5];
};
struct error_regs { /* an entry of the error log (5.14.1.1) */
    uint64_t count, lba;
    uint32_t nsid;
    uint16_t sq, cid, status;
    uint8_t pad[6];
};

enum { NVME_FEATURES = 6 }; /* those that are a plain value: nvme-feature.c */

struct nvme_regs {
    struct sq_regs sqs[NVME_QUEUES];
    struct cq_regs cqs[NVME_QUEUES];
    struct error_regs errors[NVME_ERRORS];
    uint64_t asq, acq;
    uint64_t shadow, event_index; /* Doorbell Buffer Config; 0: none */
    uint64_t timestamp;           /* ms, at guest time `timestamp_at` (ns) */
    uint64_t timestamp_at;
    uint64_t sectors_read, sectors_written, reads, writes, media_errors, error_count;
    uint32_t cc, csts, aqa, intms;
    uint32_t features[NVME_FEATURES];
    uint32_t tler[NVME_DISKS];
    uint16_t over, under; /* temperature thresholds, kelvin */
    uint16_t event_cids[NVME_EVENTS];
    uint8_t event_count;
    uint8_t events;        /* by enum nvme_event: not told yet */
    uint8_t events_masked; /* types that were told: until their log is read */
    uint8_t changed;       /* namespaces with changed attributes: bits */
    bool timestamp_set;
    bool plain_vectors[NVME_QUEUES]; /* coalescing disabled */
    uint8_t pad[6];
};

struct range {
    uint64_t at, length;
};
/* Room for the memory of a large command. */
struct table {
    struct table *next;
    struct range ranges[NVME_RANGES];
    struct iovec iov[NVME_RANGES + NVME_SPLITS];
};

struct nvme;
struct sq;

/* A command, from its fetch until its completion entry is posted. */
struct command {
    struct disk_request request;
    struct nvme *nvme;
    struct command *next; /* while it is free */
    struct sq *sq;
    struct table *table; /* NULL: `ranges` and `iov` below are used */
    struct range *range;
    unsigned ranges, room;
    unsigned generation;
    uint32_t result; /* dword 0 of the completion entry */
    uint32_t nsid;
    uint16_t cid;
    unsigned disk;        /* the request's */
    unsigned step, steps; /* of a command that makes several requests */
    enum { STEP_NONE, STEP_RANGES, STEP_DISKS, STEP_FLUSH, STEP_COMPARE } stepping;
    uint8_t *piece;                /* NVME_PIECE bytes of the disk; NULL: none */
    uint64_t compared, to_compare; /* bytes */
    struct range small[NVME_SMALL];
    struct iovec iov[NVME_SMALL + NVME_SPLITS];
};

struct sq {
    struct nvme *nvme;
    struct sq_regs *regs;
    unsigned id;
    struct sq *next; /* of nvme->busy */
    bool listed;
    unsigned commands;       /* fetched and not yet posted */
    struct command *deleter; /* Delete I/O Submission Queue waits for them */
    uint32_t told;           /* the tail's EventIdx; UINT32_MAX: not known */
};
struct cq {
    struct nvme *nvme;
    struct cq_regs *regs;
    unsigned id;
    unsigned owed;   /* entries, of commands that run */
    bool blocked;    /* commands are not fetched for lack of room */
    struct cq *next; /* of nvme->noted */
    bool noted;
    uint32_t told;
};

struct nvme {
    struct device dev;
    struct nvme_regs regs;
    /* options and plugs */
    struct disk *disks[NVME_DISKS];
    uint64_t queues; /* I/O queue pairs */
    char *serial;

    char sn[21];
    uint8_t uuids[NVME_DISKS + 1][16];
    unsigned namespaces; /* the highest NSID */
    struct loop_source source;
    struct sq sqs[NVME_QUEUES];
    struct cq cqs[NVME_QUEUES];
    struct sq *busy, **busy_last; /* queues with commands, in turn */
    struct cq *noted;             /* queues with new entries, whose interrupts are due */
    unsigned top;                 /* the highest queue in use */
    bool starved;                 /* commands wait for a command or a table to be free */

    struct command *commands, *free_commands;
    struct table *tables, *free_tables;
    unsigned commands_used, tables_used; /* of the arrays, ever */
    unsigned pieces;                     /* in use */

    /* Requests in flight belong to a generation; those of an older one are nobody's when they end.
     * Until they all have (stopping), CSTS.RDY stays 1. */
    unsigned generation, in_flight;
    bool stopping;
    bool polling;              /* who finishes requests now sends the interrupts */
    struct disk_request flush; /* of a shutdown */
    unsigned flushed;          /* disks that are */
    unsigned kicks;            /* disks with requests to start: bits */

    int doorbell;       /* an eventfd; -1: none */
    uint64_t doorbells; /* where it is signalled from: address of the first doorbell; 0: off */
    uint64_t rung;      /* queues whose doorbell signals it, 1 to 64: bits */
};

/* nvme.c */

/* CSTS.CFS: only a reset helps. */
void nvme_fatal(struct nvme *nvme, const char *what);
bool nvme_running(const struct nvme *nvme); /* fetches commands */
/* Nothing is in flight any more. */
void nvme_drained(struct nvme *nvme);
/* Doorbells go to the eventfd, or not, as queues and shadow buffers are now. */
void nvme_doorbells(struct nvme *nvme);

/* nvme-queue.c */

void queues_init(struct nvme *nvme);
void queues_finish(struct nvme *nvme);
/* Forgets all lists, and commands that wait without being in flight. */
void queues_forget(struct nvme *nvme);
/* Commands may be waiting anywhere. */
void queues_wake(struct nvme *nvme);
void queues_count(struct nvme *nvme);  /* which there are has changed */
void queues_shadow(struct nvme *nvme); /* there are shadow doorbells now */
/* Fetches and starts commands, posts events, sends interrupts: a bounded batch. True: more. */
bool queues_turn(struct nvme *nvme);
void queues_interrupt(struct nvme *nvme);
/* After a restore of the registers. */
void queues_loaded(struct nvme *nvme);
void queues_level(struct nvme *nvme); /* INTx */
void sq_doorbell(struct nvme *nvme, unsigned id, uint32_t tail);
void cq_doorbell(struct nvme *nvme, unsigned id, uint32_t head);
/* Reads the shadow doorbells; true when one moved. */
bool queues_look(struct nvme *nvme);
/* Asks for doorbells again. */
void queues_ask(struct nvme *nvme);
void sq_create(struct nvme *nvme, unsigned id, uint64_t address, unsigned size, unsigned cq);
void cq_create(struct nvme *nvme, unsigned id, uint64_t address, unsigned size, unsigned vector,
               bool interrupt);
/* `command` is complete when nothing of queue `id` is left. */
void sq_delete(struct command *command, unsigned id);
void cq_delete(struct nvme *nvme, unsigned id);
/* A command of sq; NULL: none is free, or there is no room for its completion. */
struct command *command_new(struct nvme *nvme, struct sq *sq, uint16_t cid);
bool command_table(struct command *command); /* gives it a table; false: none is free */
void command_free(struct command *command);
/* Posts its completion entry, and frees it. */
void command_complete(struct command *command, uint16_t status);
/* Fills in nothing: submits command->request to its disk. */
void command_submit(struct command *command);

/* nvme-data.c */

/* What PRPs or SGLs say of `length` bytes, as command->range. */
uint16_t data_map(struct command *command, const struct sqe *sqe, uint64_t length);
/* The same as host memory, as the request's iov. */
uint16_t data_span(struct command *command, bool write);
/* Copies between a buffer and the first bytes of what was mapped. */
uint16_t data_copy(struct command *command, void *buffer, size_t length, bool to_guest);

/* nvme-admin.c and nvme-io.c: carry out a command. */
uint16_t admin_execute(struct command *command, const struct sqe *sqe);
uint16_t io_execute(struct command *command, const struct sqe *sqe);
/* The commands supported, for the log page about them. */
bool admin_supports(unsigned opcode);
bool io_supports(unsigned opcode, bool *writes);

/* nvme-feature.c */
enum {
    FEATURE_ARBITRATION,
    FEATURE_POWER,
    FEATURE_WRITE_CACHE,
    FEATURE_COALESCING,
    FEATURE_ATOMICITY,
    FEATURE_EVENTS
};
void features_reset(struct nvme *nvme);
uint32_t feature_value(const struct nvme *nvme, unsigned feature);
uint16_t admin_set_features(struct command *command, const struct sqe *sqe);
uint16_t admin_get_features(struct command *command, const struct sqe *sqe);

/* nvme-identify.c */
void identify_init(struct nvme *nvme);
uint16_t admin_identify(struct command *command, const struct sqe *sqe);
extern const char nvme_firmware[8];

/* nvme-log.c */
enum nvme_event {
    EVENT_DOORBELL_REGISTER,
    EVENT_DOORBELL_VALUE,
    EVENT_TEMPERATURE,
    EVENT_NAMESPACE
};
enum { NVME_TEMPERATURE = 298 }; /* a drive made of software is at room temperature: 25 C */
uint16_t admin_get_log(struct command *command, const struct sqe *sqe);
uint16_t admin_async_event(struct command *command, const struct sqe *sqe);
/* Gives up a waiting Asynchronous Event Request; false: there is none with that cid. */
bool event_abort(struct nvme *nvme, uint16_t cid);
void event_raise(struct nvme *nvme, enum nvme_event event);
void events_tell(struct nvme *nvme); /* completes requests for what happened */
uint8_t critical_warning(const struct nvme *nvme);
/* Enters a failed command into the error log; gives the status to answer with. */
uint16_t log_error_entry(struct command *command, uint16_t status, uint64_t lba);
