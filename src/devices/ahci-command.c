/* The AHCI command engine: fetches commands (AHCI 1.3.1 section 4.2), carries out what the drive
 * makes of them with DMA straight between guest memory and the disk, and posts FISes (SATA 3.x
 * section 10.5). Called with the device's lock held; completions come from the disks' threads.
 *
 * What a guest put into memory is copied once and the copy judged; an address that is no memory
 * stops the port with PxIS.HBFS. The PRDT is ahci-prdt.c's. */
#include "ahci.h"

#include "atapi.h"

#include <errno.h>
#include <string.h>

enum { HEADER_SIZE = 32, PACKET_AT = 0x40 };
/* Command header (4.2.2). */
enum { HEADER_PACKET = 1 << 5, HEADER_PRDTL_SHIFT = 16, HEADER_PRDBC = 4 };
/* FIS types, and where they are put (4.2.1). */
enum {
    FIS_TO_DEVICE = 0x27,
    FIS_REGISTERS = 0x34,
    FIS_DMA_SETUP = 0x41,
    FIS_PIO_SETUP = 0x5f,
    FIS_DEVICE_BITS = 0xa1,
    AT_DMA_SETUP = 0x00,
    AT_PIO_SETUP = 0x20,
    AT_REGISTERS = 0x40,
    AT_DEVICE_BITS = 0x58,
};
enum { FIS_COMMAND = 0x80, FIS_INTERRUPT = 0x40, FIS_TO_HOST = 0x20, FIS_SIZE = 20 };
enum { CONTROL_SRST = 4, REASON_DONE = 3 /* ATAPI: command and input/output set */ };

struct header {
    le32 flags, moved, table, table_high;
};

static uint32_t bit(const struct command *command)
{
    return UINT32_C(1) << command->slot;
}

/* --- errors ---------------------------------------------------------------------------------- */

/* The command list stops until software clears PxCMD.ST (6.2.2). */
static void halt(struct port *port, uint32_t events)
{
    port->regs->halted = true;
    port_cancel(port);
    port_interrupt(port, events);
}

void command_bad_address(struct command *command)
{
    guest_bug(&command->port->ahci->dev, "port %u, slot %u: DMA to what is no memory",
              command->port->number, command->slot);
    halt(command->port, PORT_HOST_BUS_FATAL);
}

void port_cancel(struct port *port)
{
    port->generation++;
    port->started = 0;
    port->exclusive = false;
    port->draining = port->pending;
    if (!port->draining)
        port_drained(port);
}

/* --- FISes to the host ----------------------------------------------------------------------- */

static void post(struct port *port, unsigned at, const uint8_t *fis, size_t length)
{
    if (port->regs->cmd & CMD_FRE &&
        !pci_write(&port->ahci->dev, GPA(port->regs->fb + at), fis, length))
        port_interrupt(port, PORT_HOST_BUS_FATAL);
}

static void fill_registers(uint8_t fis[FIS_SIZE], uint8_t type, uint8_t flags,
                           const struct taskfile *t)
{
    memset(fis, 0, FIS_SIZE);
    fis[0] = type;
    fis[1] = flags;
    fis[2] = t->status;
    fis[3] = t->error;
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(t->lba >> 8 * i);
        fis[8 + i] = (uint8_t)(t->lba >> (24 + 8 * i));
    }
    fis[7] = t->device;
    fis[12] = (uint8_t)t->count;
    fis[13] = (uint8_t)(t->count >> 8);
}

static void show_status(struct port *port, const struct taskfile *t)
{
    port->regs->tfd = (uint32_t)t->error << 8 | t->status;
}

void port_post_registers(struct port *port, const struct taskfile *t, bool interrupt)
{
    uint8_t fis[FIS_SIZE];
    fill_registers(fis, FIS_REGISTERS, interrupt ? FIS_INTERRUPT : 0, t);
    show_status(port, t);
    post(port, AT_REGISTERS, fis, sizeof fis);
}

/* SATA 10.5.9: the last one of a PIO command; the status it ends with is in byte 15. */
static void post_pio_setup(struct command *command)
{
    const struct taskfile *t = &command->job.taskfile;
    uint8_t fis[FIS_SIZE];
    fill_registers(fis, FIS_PIO_SETUP,
                   (uint8_t)(FIS_INTERRUPT | (command->to_host ? FIS_TO_HOST : 0)), t);
    fis[2] = (uint8_t)(ATA_READY | ATA_REQUEST);
    fis[15] = t->status;
    fis[16] = (uint8_t)MIN(command->moved, SECTOR);
    fis[17] = (uint8_t)(MIN(command->moved, SECTOR) >> 8);
    post(command->port, AT_PIO_SETUP, fis, sizeof fis);
}

/* SATA 10.5.5: queued data goes to or from the buffers of a tag. */
static void post_dma_setup(struct command *command)
{
    uint8_t fis[28] = { FIS_DMA_SETUP, command->job.kind == JOB_READ ? FIS_TO_HOST : 0 };
    fis[4] = (uint8_t)command->slot;
    for (unsigned i = 0; i < 4; i++)
        fis[20 + i] = (uint8_t)(command->job.length >> 8 * i);
    post(command->port, AT_DMA_SETUP, fis, sizeof fis);
}

/* SATA 10.5.7: queued commands that ended. BSY and DRQ are not the FIS's business. */
static void post_device_bits(struct port *port, const struct taskfile *t, uint32_t ended)
{
    enum { BITS = 0x77 };
    uint8_t fis[8] = { FIS_DEVICE_BITS, FIS_INTERRUPT, t->status & BITS, t->error };
    for (unsigned i = 0; i < 4; i++)
        fis[4 + i] = (uint8_t)(ended >> 8 * i);
    port->regs->tfd =
        (uint32_t)t->error << 8 | (t->status & BITS) | (port->regs->tfd & ~BITS & 0xff);
    post(port, AT_DEVICE_BITS, fis, sizeof fis);
}

/* --- the end of a command -------------------------------------------------------------------- */

static void complete_queued(struct command *command)
{
    struct port *port = command->port;
    const struct taskfile *t = &command->job.taskfile;
    port->started &= ~bit(command);
    if (t->status & ATA_ERROR) {
        ata_log_failure(&port->drive, &command->job, command->slot);
        post_device_bits(port, t, 0);
        halt(port, command->events | PORT_SET_DEVICE_BITS | PORT_TASK_FILE_ERROR);
        return;
    }
    port->regs->sact &= ~bit(command);
    post_device_bits(port, t, bit(command));
    port_interrupt(port, command->events | PORT_SET_DEVICE_BITS);
}

static void complete(struct command *command)
{
    struct port *port = command->port;
    struct taskfile *t = &command->job.taskfile;
    uint32_t events = command->events;
    bool failed = t->status & ATA_ERROR, pio = command->job.pio && command->moved;
    le32 moved = le32_of(command->moved);
    port->started &= ~bit(command);
    port->exclusive = false;
    if (port->drive.packet && t->command == 0xa0)
        t->count = REASON_DONE;
    if (!pci_write(&port->ahci->dev, GPA(command->header + HEADER_PRDBC), &moved, sizeof moved)) {
        command_bad_address(command);
        return;
    }
    if (pio) {
        post_pio_setup(command);
        events |= PORT_PIO_SETUP;
    }
    if (pio && command->to_host && !failed && !port->drive.packet) {
        show_status(port, t); /* PIO data-in ends with its PIO Setup FIS */
    } else {
        port_post_registers(port, t, true);
        events |= PORT_D2H;
    }
    if (failed) {
        halt(port, events | PORT_TASK_FILE_ERROR);
        return;
    }
    port->regs->ci &= ~bit(command);
    port_interrupt(port, events);
    if (command->job.eject)
        device_request(&port->ahci->dev, BOARD_MEDIA_EJECT, port->number);
}

static void finish(struct command *command)
{
    if (command->job.queued)
        complete_queued(command);
    else
        complete(command);
}

/* --- carrying out ---------------------------------------------------------------------------- */

static void disk_done(struct disk_request *request, int error);

static void submit(struct command *command, enum disk_op op, uint64_t offset, uint64_t length,
                   unsigned spans)
{
    struct port *port = command->port;
    command->disk = port->drive.disk;
    command->request = (struct disk_request){
        .op = op,
        .offset = offset,
        .length = length,
        .iov = command->iov,
        .iov_count = spans,
        .done = disk_done,
        .owner = command,
    };
    port->pending++;
    disk_submit(command->disk, &command->request);
    disk_kick(command->disk);
}

/* The table has no room for the rest: what the drive sends is dropped (6.1.2); what it wants to
 * have does not come. */
static void overflow(struct command *command)
{
    command->events |= PORT_OVERFLOW;
    if (command->to_host) {
        command->job.kind = JOB_DONE;
        finish(command);
        return;
    }
    ata_fail(&command->job, ATA_ABORTED);
    finish(command);
}

static void transfer_piece(struct command *command)
{
    struct job *job = &command->job;
    enum prd_result result;
    unsigned spans;
    uint64_t length = 0;
    if (pci_master(&command->port->ahci->dev))
        length = prdt_gather(command, job->length - command->done, &spans, &result);
    else
        result = PRD_BAD;
    if (!length && result == PRD_END)
        overflow(command);
    else if (!length)
        command_bad_address(command);
    else
        submit(command, job->kind == JOB_READ ? DISK_READ : DISK_WRITE, job->offset + command->done,
               length, spans);
}

/* Reads into the drive's own buffer, again and again. */
static void verify_piece(struct command *command)
{
    struct job *job = &command->job;
    uint64_t left = job->length - command->done, length = 0;
    unsigned spans = 0;
    for (; length < left && spans < AHCI_SPANS; spans++) {
        size_t n = MIN(left - length, DRIVE_DATA);
        command->iov[spans] = (struct iovec){ command->port->drive.data, n };
        length += n;
    }
    command->range_count = 0;
    submit(command, DISK_READ, job->offset + command->done, length, spans);
}

/* Data for the drive's buffer; false when the command has ended by that. */
static bool take_data(struct command *command)
{
    unsigned length = command->job.data;
    if (!prdt_copy(command, &length, false))
        return false;
    if (length < command->job.data) {
        overflow(command);
        return false;
    }
    ata_taken(&command->port->drive, &command->job);
    return true;
}

static void send_data(struct command *command)
{
    unsigned length = command->job.data;
    command->to_host = true;
    if (!prdt_copy(command, &length, true))
        return;
    if (length < command->job.data)
        command->events |= PORT_OVERFLOW;
    finish(command);
}

/* The drive has made up its mind: does what can be done now. */
static void carry_out(struct command *command)
{
    struct job *job = &command->job;
    if (job->kind == JOB_TAKE && !take_data(command))
        return;
    switch (job->kind) {
    case JOB_SEND:
        send_data(command);
        break;
    case JOB_READ:
    case JOB_WRITE:
        command->to_host = job->kind == JOB_READ;
        transfer_piece(command);
        break;
    case JOB_VERIFY:
        verify_piece(command);
        break;
    case JOB_FLUSH:
        submit(command, DISK_FLUSH, 0, 0, 0);
        break;
    case JOB_DISCARD:
        submit(command, DISK_DISCARD, job->offset, job->length, 0);
        break;
    case JOB_DONE:
    case JOB_TAKE:
    case JOB_PACKET:
        finish(command);
        break;
    }
}

/* A request of the command ended well. */
static void step(struct command *command)
{
    struct job *job = &command->job;
    switch (command->request.op) {
    case DISK_READ:
    case DISK_WRITE:
        command->done += command->request.length;
        if (job->kind != JOB_VERIFY)
            command->moved += (uint32_t)command->request.length;
        if (command->done == job->length)
            job->kind = job->flush ? JOB_FLUSH : JOB_DONE;
        break;
    case DISK_FLUSH:
        job->kind = JOB_DONE;
        break;
    case DISK_DISCARD:
    case DISK_WRITE_ZEROES: /* not asked for by any ATA command here */
        ata_discarded(&command->port->drive, job);
        break;
    }
    carry_out(command);
}

static void disk_done(struct disk_request *request, int error)
{
    struct command *command = request->owner;
    struct port *port = command->port;
    port->pending--;
    if (request->op == DISK_READ)
        for (unsigned i = 0; i < command->range_count; i++)
            guest_span_written(port->ahci->dev.board->guest, GPA(command->ranges[i].at),
                               command->ranges[i].length);
    if (command->generation != port->generation) {
        if (!port->pending) {
            port->draining = false;
            port_drained(port);
        }
    } else if (error || command->disk != port->drive.disk) {
        ata_disk_failed(&port->drive, &command->job, error);
        finish(command);
    } else {
        step(command);
    }
    port_run(port);
}

/* --- the start of a command ------------------------------------------------------------------ */

/* SATA 10.5.5: the Register FIS from host to device. */
static void parse(const uint8_t fis[FIS_SIZE], struct taskfile *t)
{
    *t = (struct taskfile){
        .command = fis[2],
        .device = fis[7],
        .control = fis[15],
        .features = (uint16_t)(fis[3] | fis[11] << 8),
        .count = (uint16_t)(fis[12] | fis[13] << 8),
        .lba = fis[4] | (uint64_t)fis[5] << 8 | (uint64_t)fis[6] << 16 | (uint64_t)fis[8] << 24 |
               (uint64_t)fis[9] << 32 | (uint64_t)fis[10] << 40,
    };
}

/* A FIS that writes the device control register: SRST set, then cleared (ATA8-ACS 9.3). */
static void control(struct command *command)
{
    struct port *port = command->port;
    struct drive_regs *regs = port->drive.regs;
    bool srst = command->job.taskfile.control & CONTROL_SRST;
    bool ends = regs->soft_reset && !srst;
    port->regs->ci &= ~bit(command);
    if (srst) {
        regs->soft_reset = true;
        port_cancel(port);
        port->regs->tfd = ATA_BUSY;
    } else if (ends) {
        ata_reset(&port->drive);
        port->resetting = true;
        port_cancel(port);
    }
}

static void execute(struct command *command, const uint8_t packet[PACKET_SIZE])
{
    struct port *port = command->port;
    struct job *job = &command->job;
    ata_command(&port->drive, job);
    bool refused = job->kind == JOB_DONE && job->queued;
    if (job->queued)
        refused |= (job->taskfile.count >> 3 & 31u) != command->slot;
    else
        refused |= port->started != 0; /* SATA 13.6.4.1: not while others are queued */
    if (refused) {
        if (!(job->taskfile.status & ATA_ERROR))
            ata_fail(job, ATA_ABORTED);
        ata_log_failure(&port->drive, job, command->slot);
        job->queued = false;
    }
    port->started |= bit(command);
    if (!job->queued) {
        port->exclusive = true;
        port->regs->tfd = ATA_BUSY;
    } else {
        struct taskfile accepted = job->taskfile;
        port->regs->ci &= ~bit(command);
        port_post_registers(port, &accepted, false);
        post_dma_setup(command);
    }
    if (job->kind == JOB_PACKET)
        atapi_command(&port->drive, job, packet);
    carry_out(command);
}

static void start(struct port *port, unsigned slot)
{
    struct device *dev = &port->ahci->dev;
    struct command *command = &port->commands[slot];
    command->port = port;
    command->slot = slot;
    struct header header;
    uint8_t fis[FIS_SIZE], packet[PACKET_SIZE] = { 0 };
    port->regs->slot = (uint8_t)slot;
    port->last = slot;
    command->generation = port->generation;
    command->header = port->regs->clb + slot * HEADER_SIZE;
    command->place = (struct place){ 0, 0 };
    command->moved = command->events = command->range_count = 0;
    command->done = 0;
    command->to_host = false;
    command->job = (struct job){ .kind = JOB_DONE };
    bool ok = pci_read(dev, GPA(command->header), &header, sizeof header);
    if (ok) {
        command->table =
            ((uint64_t)le32_get(header.table_high) << 32 | le32_get(header.table)) & ~UINT64_C(127);
        command->entries = le32_get(header.flags) >> HEADER_PRDTL_SHIFT;
        ok = pci_read(dev, GPA(command->table), fis, sizeof fis);
    }
    if (ok && le32_get(header.flags) & HEADER_PACKET)
        ok = pci_read(dev, GPA(command->table + PACKET_AT), packet, sizeof packet);
    if (!ok) {
        command_bad_address(command);
        return;
    }
    if (fis[0] != FIS_TO_DEVICE) {
        guest_bug(dev, "port %u, slot %u: FIS of type %#x", port->number, slot, fis[0]);
        halt(port, PORT_INTERFACE_FATAL);
        return;
    }
    parse(fis, &command->job.taskfile);
    if (fis[1] & FIS_COMMAND)
        execute(command, packet);
    else
        control(command);
}

static bool ready(const struct port *port)
{
    const struct port_regs *regs = port->regs;
    return port->commands && regs->cmd & CMD_ST && regs->running && !regs->halted &&
           !port->draining && !port->exclusive && pci_master(&port->ahci->dev);
}

/* The next slot to start, in turn (5.3.2.3); AHCI_SLOTS when none. A command that is not queued
 * (no bit in PxSACT) waits for those that are. */
static unsigned next_slot(const struct port *port)
{
    uint32_t waiting = port->regs->ci & ~port->started;
    if (port->started)
        waiting &= port->regs->sact;
    for (unsigned i = 1; waiting && i <= AHCI_SLOTS; i++) {
        unsigned slot = (port->last + i) % AHCI_SLOTS;
        if (waiting >> slot & 1)
            return slot;
    }
    return AHCI_SLOTS;
}

void port_run(struct port *port)
{
    for (unsigned i = 0; i < AHCI_SLOTS && ready(port); i++) {
        unsigned slot = next_slot(port);
        if (slot == AHCI_SLOTS)
            break;
        start(port, slot);
    }
}
