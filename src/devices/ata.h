/* Drives as their commands see them: what an ATA disk or an ATAPI CD drive makes of a command
 * (ATA8-ACS, MMC-6), apart from how a controller carries data. A helper of ahci.c, not a device:
 * called with the controller's lock held; owns no memory. */
#pragma once
#include "base/state.h"
#include "block/disk.h"

enum { DRIVE_DATA = 4096, CD_BLOCK = 2048, DRIVE_SERIAL = 20 };

/* ATA8-ACS 6.2 and 6.3: status and error. */
enum {
    ATA_BUSY = 0x80,
    ATA_READY = 0x50, /* DRDY, and bit 4, which all disks set */
    ATA_FAULT = 0x20,
    ATA_REQUEST = 0x08,
    ATA_ERROR = 0x01,
};
enum { ATA_UNCORRECTABLE = 0x40, ATA_NOT_FOUND = 0x10, ATA_ABORTED = 0x04 };

/* What of a drive is saved. */
struct drive_regs {
    /* The NCQ error log (log 10h). */
    uint64_t failed_lba;
    uint16_t failed_count;
    uint8_t failed_tag; /* bit 7: the command was not a queued one */
    uint8_t failed_status, failed_error;
    bool queue_failed; /* commands are aborted until the log is read */

    uint8_t multiple;       /* sectors in a block of READ MULTIPLE; 0: none set */
    uint8_t transfer_mode;  /* SET FEATURES 03h */
    uint8_t power;          /* what CHECK POWER MODE answers */
    uint8_t heads, sectors; /* of the translation that CHS addresses use */
    bool write_cache, look_ahead, soft_reset;

    /* Packet commands. */
    uint8_t sense_key, sense_code, sense_qualifier;
    uint8_t attention;   /* unit attention: the additional sense code; 0: none */
    uint8_t media_event; /* MMC-6 table 290, for GET EVENT STATUS NOTIFICATION */
    bool locked, tray_open;
    uint8_t pad[3];
};
extern const struct field drive_fields[];

struct drive {
    struct drive_regs *regs;
    struct disk *disk; /* a CD drive without a medium: NULL */
    bool packet;       /* a CD drive */
    char serial[DRIVE_SERIAL + 1];
    uint8_t data[DRIVE_DATA]; /* of the command that is not queued */
};

/* The registers of a command block, as a Register FIS carries them. */
struct taskfile {
    uint64_t lba; /* 48 bits */
    uint16_t features, count;
    uint8_t command, device, control;
    uint8_t status, error;
};

/* What a command wants done. */
enum job_kind {
    JOB_DONE,    /* nothing: taskfile has the result */
    JOB_SEND,    /* `data` bytes of drive->data to the host */
    JOB_TAKE,    /* `data` bytes from the host to drive->data, then ata_taken */
    JOB_READ,    /* from the disk to the host */
    JOB_WRITE,   /* from the host to the disk */
    JOB_VERIFY,  /* from the disk to nowhere */
    JOB_FLUSH,   /* the disk's */
    JOB_DISCARD, /* a range of the disk; ata_discarded tells the next */
    JOB_PACKET,  /* atapi_command with the command's packet */
};
struct job {
    enum job_kind kind;
    bool pio, queued;
    bool flush; /* when written: the data must be on stable storage */
    bool eject; /* and the medium is to be forgotten */
    unsigned data;
    unsigned range;          /* of DATA SET MANAGEMENT: the next one */
    uint64_t offset, length; /* bytes of the disk, whole sectors */
    struct taskfile taskfile;
};

/* Power on, or a reset by the controller (COMRESET) or by software (SRST). */
void ata_power_on(struct drive *drive);
void ata_reset(struct drive *drive);
/* What the registers hold after a reset: the signature (ATA8-ACS table 184). */
void ata_signature(const struct drive *drive, struct taskfile *taskfile);

/* A command: `job` has its taskfile, and gets the rest. */
void ata_command(struct drive *drive, struct job *job);
/* The host's data for a JOB_TAKE is in drive->data: what now? */
void ata_taken(struct drive *drive, struct job *job);
/* A range is discarded: makes the job the next one, or JOB_DONE. */
void ata_discarded(struct drive *drive, struct job *job);

/* Makes the job a failed one. */
void ata_fail(struct job *job, uint8_t error);
/* The disk failed a transfer of the job with an errno. */
void ata_disk_failed(struct drive *drive, struct job *job, int error);
/* A failure of a queued command (or while commands are queued), for the log. */
void ata_log_failure(struct drive *drive, const struct job *job, unsigned tag);

static inline uint32_t ata_get32(const uint8_t *at)
{
    return (uint32_t)(at[0] | at[1] << 8 | at[2] << 16) | (uint32_t)at[3] << 24;
}
