/* The NVM command set (section 6): Flush, Write, Read, Compare, Write Zeroes, Dataset Management.
 * Each is one request to a disk, or several in a row: a flush after a write with FUA, a discard for
 * each range, a flush for each disk, a read for each piece that is compared. */
#include "nvme.h"

#include <errno.h>

enum {
    IO_FLUSH = 0x00,
    IO_WRITE = 0x01,
    IO_READ = 0x02,
    IO_COMPARE = 0x05,
    IO_ZEROES = 0x08,
    IO_DATASET = 0x09
};
enum { DW12_FUA = 1 << 30, DSM_DEALLOCATE = 1 << 2, DSM_RANGES = 256 };

struct dsm_range { /* figure 382 */
    le32 attributes, length;
    le64 lba;
};

/* --- requests -------------------------------------------------------------------------------- */

static uint16_t failure(const struct command *command, int error)
{
    if (error == EROFS)
        return NVME_WRITE_PROTECTED;
    if (error == EINVAL)
        return NVME_LBA_RANGE; /* the disk has become smaller */
    return command->request.op == DISK_READ ? NVME_READ_ERROR : NVME_WRITE_FAULT;
}

/* The next piece of the disk that is to be compared, into the command's own buffer. */
static bool next_piece(struct command *command)
{
    struct disk_request *request = &command->request;
    uint64_t left = command->to_compare - command->compared;
    request->offset += command->compared ? request->length : 0;
    request->length = MIN(left, (uint64_t)NVME_PIECE);
    command->iov[0] = (struct iovec){ command->piece, request->length };
    request->iov = command->iov;
    request->iov_count = 1;
    return left > 0;
}

/* Puts the next request of a command with several into place; false: there is none. */
static bool next_step(struct command *command)
{
    struct nvme *nvme = command->nvme;
    struct disk_request *request = &command->request;
    if (command->stepping == STEP_COMPARE)
        return next_piece(command);
    if (command->stepping == STEP_FLUSH) {
        command->stepping = STEP_NONE;
        request->op = DISK_FLUSH;
        return true;
    }
    while (command->stepping != STEP_NONE && command->step < command->steps) {
        unsigned step = command->step++;
        request->offset = command->stepping == STEP_RANGES ? command->range[step].at : 0;
        request->length = command->stepping == STEP_RANGES ? command->range[step].length : 0;
        if (command->stepping == STEP_DISKS)
            command->disk = step;
        if (request->length || (command->stepping == STEP_DISKS && nvme->disks[step]))
            return true;
    }
    return false;
}

/* For the SMART log, where a Compare is a read (5.14.1.2). */
static void count(struct command *command)
{
    struct nvme_regs *regs = &command->nvme->regs;
    const struct disk_request *request = &command->request;
    bool compare = command->stepping == STEP_COMPARE;
    if (request->op == DISK_READ) {
        regs->reads += !compare || !command->compared;
        regs->sectors_read += request->length / SECTOR;
        for (unsigned i = 0; i < command->ranges && !compare; i++)
            guest_span_written(command->nvme->dev.board->guest, GPA(command->range[i].at),
                               command->range[i].length);
    } else if (request->op == DISK_WRITE) {
        regs->writes++;
        regs->sectors_written += request->length / SECTOR;
    }
}

/* Is the piece of the disk what the guest's memory holds there? */
static uint16_t compare_piece(struct command *command)
{
    const uint8_t *piece = command->piece;
    uint64_t skip = command->compared, left = command->request.length;
    for (unsigned i = 0; i < command->ranges && left; i++) {
        struct range range = command->range[i];
        if (skip >= range.length) {
            skip -= range.length;
            continue;
        }
        range.at += skip;
        range.length -= skip;
        skip = 0;
        while (range.length && left) {
            uint8_t bytes[SECTOR];
            size_t n = MIN(MIN(range.length, left), sizeof bytes);
            if (!pci_read(&command->nvme->dev, GPA(range.at), bytes, n))
                return NVME_DATA_ERROR;
            if (memcmp(bytes, piece, n))
                return NVME_COMPARE_FAILURE;
            piece += n;
            left -= n;
            range.at += n;
            range.length -= n;
        }
    }
    command->compared += command->request.length;
    return NVME_OK;
}

static void finish(struct command *command, int error)
{
    uint16_t status = NVME_OK;
    if (error == EOPNOTSUPP && command->request.op == DISK_DISCARD)
        error = 0; /* a deallocation is advice */
    if (!error)
        count(command);
    if (!error && command->stepping == STEP_COMPARE)
        status = compare_piece(command);
    if (!error && !status && next_step(command)) {
        command_submit(command);
        disk_kick(command->nvme->disks[command->disk]);
        return;
    }
    if (error)
        status = failure(command, error);
    if (error && error != EROFS)
        status = log_error_entry(command, status, command->request.offset / SECTOR);
    command_complete(command, status);
}

static void done(struct disk_request *request, int error)
{
    struct command *command = request->owner;
    struct nvme *nvme = command->nvme;
    nvme->in_flight--;
    if (command->generation != nvme->generation)
        command_free(command);
    else
        finish(command, error);
    if (!nvme->in_flight)
        nvme_drained(nvme);
    if (!nvme->polling)
        loop_wake(&nvme->source);
}

static uint16_t start(struct command *command, enum disk_op op, uint64_t lba, uint64_t sectors)
{
    struct disk_request *request = &command->request;
    request->op = op;
    request->offset = lba * SECTOR;
    request->length = sectors * SECTOR;
    request->done = done;
    request->owner = command;
    command_submit(command);
    return NVME_LATER;
}

/* --- commands -------------------------------------------------------------------------------- */

static const struct disk *disk_of(const struct command *command)
{
    return command->nvme->disks[command->disk];
}

static bool in_range(const struct command *command, uint64_t lba, uint64_t sectors)
{
    uint64_t size = disk_of(command)->size / SECTOR;
    return sectors <= size && lba <= size - sectors;
}

/* The blocks that Read, Write and Write Zeroes name; false when they are not on the disk. */
static bool blocks(const struct command *command, const struct sqe *sqe, uint64_t *lba,
                   uint64_t *sectors)
{
    *lba = (uint64_t)sqe_dword(sqe, 11) << 32 | sqe_dword(sqe, 10);
    *sectors = (sqe_dword(sqe, 12) & 0xffff) + 1;
    return in_range(command, *lba, *sectors);
}

/* Is it on stable storage when it ends? (6.15, 5.21.1.6) */
static void write_through(struct command *command, const struct sqe *sqe)
{
    if (sqe_dword(sqe, 12) & DW12_FUA || !feature_value(command->nvme, FEATURE_WRITE_CACHE))
        command->stepping = STEP_FLUSH;
}

static uint16_t transfer(struct command *command, const struct sqe *sqe, bool write)
{
    uint64_t lba, sectors;
    if (!blocks(command, sqe, &lba, &sectors))
        return NVME_LBA_RANGE;
    uint16_t status = data_map(command, sqe, sectors * SECTOR);
    if (!status)
        status = data_span(command, !write);
    if (status)
        return status;
    if (write)
        write_through(command, sqe);
    return start(command, write ? DISK_WRITE : DISK_READ, lba, sectors);
}

static uint16_t io_read(struct command *command, const struct sqe *sqe)
{
    return transfer(command, sqe, false);
}

static uint16_t io_write(struct command *command, const struct sqe *sqe)
{
    return transfer(command, sqe, true);
}

/* Section 6.6. What is compared is read in pieces, and not many commands have room for one: the
 * others wait. */
static uint16_t io_compare(struct command *command, const struct sqe *sqe)
{
    uint64_t lba, sectors;
    if (!blocks(command, sqe, &lba, &sectors))
        return NVME_LBA_RANGE;
    uint16_t status = data_map(command, sqe, sectors * SECTOR);
    if (status)
        return status;
    if (command->nvme->pieces == NVME_PIECES)
        return NVME_BUSY;
    command->piece = g_try_malloc(NVME_PIECE);
    if (!command->piece)
        return NVME_INTERNAL_ERROR;
    command->nvme->pieces++;
    command->stepping = STEP_COMPARE;
    command->compared = 0;
    command->to_compare = sectors * SECTOR;
    next_piece(command);
    return start(command, DISK_READ, lba, command->request.length / SECTOR);
}

static uint16_t io_zeroes(struct command *command, const struct sqe *sqe)
{
    uint64_t lba, sectors;
    if (!blocks(command, sqe, &lba, &sectors))
        return NVME_LBA_RANGE;
    write_through(command, sqe);
    return start(command, DISK_WRITE_ZEROES, lba, sectors);
}

static uint16_t io_flush(struct command *command, const struct sqe *sqe)
{
    (void)sqe;
    if (command->nsid != NVME_ALL)
        return start(command, DISK_FLUSH, 0, 0);
    command->stepping = STEP_DISKS;
    command->step = 0;
    command->steps = NVME_DISKS;
    return next_step(command) ? start(command, DISK_FLUSH, 0, 0) : (uint16_t)NVME_OK;
}

static uint16_t io_dataset(struct command *command, const struct sqe *sqe)
{
    struct dsm_range ranges[DSM_RANGES];
    unsigned n = (sqe_dword(sqe, 10) & 0xff) + 1;
    uint16_t status = data_map(command, sqe, n * sizeof ranges[0]);
    if (!status)
        status = data_copy(command, ranges, n * sizeof ranges[0], false);
    if (status)
        return status;
    for (unsigned i = 0; i < n; i++)
        if (!in_range(command, le64_get(ranges[i].lba), le32_get(ranges[i].length)))
            return NVME_LBA_RANGE;
    if (!(sqe_dword(sqe, 11) & DSM_DEALLOCATE))
        return NVME_OK; /* hints only */
    if (n > NVME_SMALL && !command_table(command))
        return NVME_BUSY;
    for (unsigned i = 0; i < n; i++)
        command->range[i] = (struct range){ le64_get(ranges[i].lba) * SECTOR,
                                            (uint64_t)le32_get(ranges[i].length) * SECTOR };
    command->ranges = 0;
    command->stepping = STEP_RANGES;
    command->step = 0;
    command->steps = n;
    if (!next_step(command))
        return NVME_OK;
    return start(command, DISK_DISCARD, command->request.offset / SECTOR,
                 command->request.length / SECTOR);
}

static const struct io_command {
    uint16_t (*run)(struct command *command, const struct sqe *sqe);
    bool writes;
} io_commands[] = {
    [IO_FLUSH] = { io_flush, false },  [IO_WRITE] = { io_write, true },
    [IO_READ] = { io_read, false },    [IO_COMPARE] = { io_compare, false },
    [IO_ZEROES] = { io_zeroes, true }, [IO_DATASET] = { io_dataset, true },
};

bool io_supports(unsigned opcode, bool *writes)
{
    bool known = opcode < G_N_ELEMENTS(io_commands) && io_commands[opcode].run;
    *writes = known && io_commands[opcode].writes;
    return known;
}

uint16_t io_execute(struct command *command, const struct sqe *sqe)
{
    struct nvme *nvme = command->nvme;
    uint32_t nsid = command->nsid;
    if (sqe->opcode >= G_N_ELEMENTS(io_commands) || !io_commands[sqe->opcode].run)
        return NVME_INVALID_OPCODE;
    const struct io_command *io = &io_commands[sqe->opcode];
    if (sqe->opcode == IO_FLUSH && nsid == NVME_ALL)
        return io->run(command, sqe);
    if (!nsid || nsid > nvme->namespaces)
        return NVME_INVALID_NAMESPACE;
    if (!nvme->disks[nsid - 1])
        return NVME_INVALID_FIELD;
    command->disk = nsid - 1;
    if (io->writes && disk_of(command)->readonly)
        return NVME_WRITE_PROTECTED;
    return io->run(command, sqe);
}
