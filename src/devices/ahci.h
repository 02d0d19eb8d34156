/* What ahci.c (registers) and ahci-command.c (the command engine) share. */
#pragma once
#include "ata.h"
#include "bus/pci.h"

enum { AHCI_PORTS = 6, AHCI_SLOTS = 32, AHCI_SPANS = 256 };

/* PxIS (AHCI 1.3.1 section 3.3.5). */
enum {
    PORT_D2H = 1 << 0,
    PORT_PIO_SETUP = 1 << 1,
    PORT_SET_DEVICE_BITS = 1 << 3,
    PORT_DESCRIPTOR = 1 << 5,
    PORT_CONNECT = 1 << 6,    /* shows PxSERR.DIAG.X */
    PORT_PHY_READY = 1 << 22, /* shows PxSERR.DIAG.N */
    PORT_OVERFLOW = 1 << 24,
    PORT_INTERFACE_FATAL = 1 << 27,
    PORT_HOST_BUS_FATAL = 1 << 29,
    PORT_TASK_FILE_ERROR = 1 << 30,
};
/* PxCMD (3.3.7). */
enum {
    CMD_ST = 1 << 0,
    CMD_SUD = 1 << 1,
    CMD_POD = 1 << 2,
    CMD_CLO = 1 << 3,
    CMD_FRE = 1 << 4,
    CMD_FR = 1 << 14,
    CMD_CR = 1 << 15,
    CMD_ATAPI = 1 << 24,
    CMD_DLAE = 1 << 25,
};

struct port_regs {
    uint64_t clb, fb;
    uint32_t is, ie, cmd, tfd, sig, sctl, serr, sact, ci;
    uint8_t slot;   /* PxCMD.CCS */
    bool running;   /* PxCMD.CR */
    bool halted;    /* an error stopped the command list; PxCMD.ST = 0 clears it */
    bool signature; /* the FIS that ends a reset waits for PxCMD.FRE */
};

struct ahci_regs {
    struct port_regs ports[AHCI_PORTS];
    struct drive_regs drives[AHCI_PORTS];
    uint32_t ghc, is;
};

/* A place in a physical region descriptor table (4.2.3.3). */
struct place {
    unsigned entry;
    uint32_t offset; /* within the entry */
};

/* A command slot while the drive works on it. Not saved: the machine drains the disks first. */
struct command {
    struct disk_request request;
    struct port *port;
    struct disk *disk;   /* of the request in flight */
    unsigned generation; /* the port's, at the start */
    unsigned slot;
    uint64_t header, table; /* guest addresses of the header and of the PRDT */
    unsigned entries;       /* of the PRDT */
    struct place place;
    uint32_t moved; /* PRDBC: bytes */
    uint64_t done;  /* of job.length */
    uint32_t events;
    bool to_host;
    struct job job;
    struct iovec iov[AHCI_SPANS];
    struct range {
        uint64_t at, length;
    } ranges[AHCI_SPANS]; /* the guest addresses of iov */
    unsigned range_count;
};

struct port {
    struct ahci *ahci;
    unsigned number;
    struct port_regs *regs;
    struct drive drive;
    bool present;             /* a drive is attached */
    struct command *commands; /* AHCI_SLOTS; NULL when !present */

    /* Requests in flight belong to a generation; those of an older one are nobody's when they end.
     * Until they all have (draining), nothing new starts. */
    unsigned generation, pending;
    bool draining;
    bool resetting;   /* the drive answers with its signature when drained */
    bool exclusive;   /* a command that is not queued runs */
    uint32_t started; /* slots that run */
    unsigned last;    /* slot started last: the next one in turn is first (5.3.2.3) */
};

struct ahci {
    struct device dev;
    struct ahci_regs regs;
    struct disk *disks[AHCI_PORTS]; /* plugs */
    uint64_t cd;                    /* option: bit mask of the ports with a CD drive */
    char *serial;
    struct port ports[AHCI_PORTS];
};

/* ahci-command.c */

/* Starts the commands that can start. */
void port_run(struct port *port);
/* Gives up all that runs; port_drained follows, at once when nothing is in flight. */
void port_cancel(struct port *port);
/* A Register FIS from the drive: PxTFD, and memory when PxCMD.FRE is set. */
void port_post_registers(struct port *port, const struct taskfile *taskfile, bool interrupt);

/* The guest gave an address that is no memory: the port stops. */
void command_bad_address(struct command *command);

/* ahci-prdt.c */

enum prd_result { PRD_OK, PRD_END, PRD_BAD };
/* Gathers spans of whole sectors from the command's place on, at most `want` bytes. 0 bytes: the
 * result tells why, the end of the table or an address that is no memory. */
uint64_t prdt_gather(struct command *command, uint64_t want, unsigned *spans,
                     enum prd_result *result);
/* Copies between drive->data and the host; false after a bad address, which is told. `*length` says
 * how much the table had room for. */
bool prdt_copy(struct command *command, unsigned *length, bool to_host);

/* ahci.c */

/* Nothing given up is in flight any more. */
void port_drained(struct port *port);
void port_interrupt(struct port *port, uint32_t events);
