/* What fdc.c (class, registers, reset), fdc-command.c (all commands without data) and
 * fdc-transfer.c (those that move data) share. */
#pragma once
#include "block/disk.h"
#include "block/floppy.h"
#include "bus/device.h"

/* The chip counts four drives; a PC's cable has two. */
enum { FDC_DRIVES = 2, FDC_UNITS = 4, FDC_BYTES = 32 };

/* DOR (2.1.3). */
enum { DOR_DRIVE = 3, DOR_RUN = 1 << 2, DOR_DMA_GATE = 1 << 3, DOR_MOTOR0 = 1 << 4 };
/* DSR (2.1.5); the CCR has its rate too. */
enum { DSR_RATE = 3, DSR_KEPT = 0x3f, DSR_RESET = 1 << 7, DSR_DEFAULT = 2 };
/* Status registers of results (chapter 7). */
enum {
    ST0_ABNORMAL = 0x40,
    ST0_INVALID = 0x80,
    ST0_POLLED = 0xc0,
    ST0_SEEK_END = 1 << 5,
    ST0_EQUIPMENT = 1 << 4,
    ST0_HEAD = 1 << 2,
};
enum {
    ST1_END = 1 << 7,
    ST1_DATA = 1 << 5,
    ST1_OVERRUN = 1 << 4,
    ST1_NO_DATA = 1 << 2,
    ST1_PROTECTED = 1 << 1,
    ST1_NO_MARK = 1 << 0,
};
enum { ST2_CONTROL_MARK = 1 << 6, ST2_DATA = 1 << 5, ST2_CYLINDER = 1 << 4, ST2_BAD = 1 << 1 };
/* CONFIGURE (6.2), PERPENDICULAR MODE, SPECIFY. */
enum { CONFIG_SEEKS = 1 << 6, CONFIG_NO_FIFO = 1 << 5, CONFIG_NO_POLLING = 1 << 4 };
enum { CONFIG_KEPT = 0x7f, CONFIG_LOCKED = 0x2f };
enum { PERPENDICULAR_KEPT = 0x3f, PERPENDICULAR_DRIVES = 0x3c, PERPENDICULAR_OVERWRITE = 0x80 };
enum { SPECIFY_NO_DMA = 1 };
/* Command bytes. */
enum { COMMAND_TRACKS = 0x80, COMMAND_MFM = 0x40, COMMAND_SKIP = 0x20 };
enum { UNIT_MASK = 3, UNIT_HEAD = 1 << 2, UNIT_COUNT = 1 << 7 };

enum fdc_phase { PHASE_COMMAND, PHASE_EXECUTION, PHASE_RESULT, PHASE_LAST = PHASE_RESULT };

/* Commands that move data. */
enum fdc_kind {
    KIND_NONE,
    KIND_READ,
    KIND_READ_DELETED,
    KIND_READ_TRACK,
    KIND_VERIFY,
    KIND_WRITE,
    KIND_FORMAT,
    KIND_FORMAT_WRITE,
    KIND_LAST = KIND_FORMAT_WRITE,
};
/* What the execution waits for. */
enum fdc_step { STEP_READ, STEP_HOST, STEP_WRITE, STEP_FLUSH, STEP_LAST = STEP_FLUSH };

struct fdc_drive_regs {
    uint8_t track;  /* under the heads */
    uint8_t passed; /* the sector that passed by last */
    bool changed;   /* DSKCHG: no step since the disk came */
};

struct fdc_regs {
    uint64_t deadline; /* when the host will have been too slow: guest time */
    uint16_t at;       /* the next byte of `sector` */
    uint16_t left;     /* sectors of READ TRACK, VERIFY and FORMAT TRACK that are still to come */
    uint8_t sector[FLOPPY_SECTOR]; /* between the disk and the host */
    uint8_t bytes[FDC_BYTES];      /* of the command, then of its result */
    uint8_t count, next;           /* bytes of the result; the next byte of either */
    uint8_t phase, kind, step;
    uint8_t dor, tdr, dsr;
    uint8_t step_rate, head_load; /* SPECIFY */
    uint8_t config, precompensation_track, perpendicular, last_sector, power, option;
    uint8_t specified[FDC_UNITS]; /* DRIVE SPECIFICATION */
    uint8_t pcn[FDC_UNITS];       /* where the chip thinks that the heads are */
    uint8_t sense[FDC_UNITS];     /* ST0 for SENSE INTERRUPT STATUS */
    uint8_t sensed, polled;       /* units with such a status; units to be told of after a reset */
    uint8_t unit, head;           /* of the transfer: the drive that was selected, the side */
    uint8_t c, h, r, n;           /* the sector that is sought */
    uint8_t st0, st1, st2;        /* its result so far */
    bool header;                  /* FORMAT: the host gives the four bytes of an ID */
    bool ended;                   /* terminal count */
    bool wrote;                   /* something must be flushed */
    bool locked, interrupt;
    struct fdc_drive_regs drives[FDC_DRIVES];
    uint8_t pad[2];
};

struct fdc {
    struct device dev;
    struct fdc_regs regs;
    struct irq *irq;
    struct dma *dma;
    struct timer timer;
    struct disk *disks[FDC_DRIVES]; /* plugs */
    uint64_t types[FDC_DRIVES];     /* enum floppy_drive */

    /* The one request; what is given up stays in flight, and the next waits for its end. */
    struct disk_request request;
    struct iovec iov;
    uint8_t buffer[FLOPPY_SECTOR];
    bool busy, waiting;
    unsigned generation, submitted; /* of the command; of the request in flight */
};

/* fdc.c */

/* The drive that DOR selects, its motor on; FDC_DRIVES when there is none. */
unsigned fdc_selected(const struct fdc *fdc);
void fdc_interrupt(struct fdc *fdc, bool on);
/* The result phase, with `count` of regs.bytes. */
void fdc_result(struct fdc *fdc, unsigned count);

/* fdc-command.c */

/* A byte of a command. */
void fdc_take_command(struct fdc *fdc, uint8_t byte);
/* Moves the heads; false when a drive at its end did not move so far. */
void fdc_seek(struct fdc *fdc, unsigned unit, unsigned cylinder);

/* fdc-transfer.c */

void fdc_transfer(struct fdc *fdc, enum fdc_kind kind);
void fdc_read_id(struct fdc *fdc);
/* The host's side without DMA. */
bool fdc_host_turn(const struct fdc *fdc, bool to_host);
uint8_t fdc_give(struct fdc *fdc);
void fdc_take(struct fdc *fdc, uint8_t byte);
/* A channel, or its gate, may be open now; the host was too slow; or the disk is to be asked. */
void fdc_retry(struct fdc *fdc);
/* Forgets the transfer; nothing in flight matters any more. */
void fdc_cancel(struct fdc *fdc);
/* The disk is gone in the middle of it. */
void fdc_lose_disk(struct fdc *fdc);
/* After a restore: what waited for the disk asks it again. */
void fdc_resume(struct fdc *fdc);
