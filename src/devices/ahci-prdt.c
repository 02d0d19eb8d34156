/* Physical region descriptor tables (AHCI 1.3.1 section 4.2.3.3): a command's data buffers in guest
 * memory. Long tables are worked off in pieces of at most AHCI_SPANS spans and PIECE_ENTRIES
 * entries, so that no access does unbounded work. Called with the device's lock held. */
#include "ahci.h"

enum { PRDT = 0x80, PIECE_ENTRIES = 1024 };

struct entry {
    le64 address;
    le32 reserved, count;
};

/* The memory at the command's place in the table. */
static enum prd_result prd_get(struct command *command, uint64_t *at, uint32_t *length)
{
    enum { COUNT = 0x3fffff };
    struct entry entry;
    const struct place *place = &command->place;
    if (place->entry >= command->entries)
        return PRD_END;
    if (!pci_read(&command->port->ahci->dev,
                  GPA(command->table + PRDT + place->entry * sizeof entry), &entry, sizeof entry))
        return PRD_BAD;
    uint32_t count = le32_get(entry.count), size = ((count & COUNT) | 1) + 1;
    if (count >> 31)
        command->events |= PORT_DESCRIPTOR;
    if (place->offset >= size)
        return PRD_BAD; /* the guest made it smaller meanwhile */
    *at = (le64_get(entry.address) & ~UINT64_C(1)) + place->offset;
    *length = size - place->offset;
    return PRD_OK;
}

/* Moves on by `taken` of the `length` bytes that are left in the entry. */
static void prd_advance(struct place *place, uint32_t length, uint32_t taken)
{
    if (taken < length)
        place->offset += taken;
    else
        *place = (struct place){ place->entry + 1, 0 };
}

bool prdt_copy(struct command *command, unsigned *length, bool to_host)
{
    struct device *dev = &command->port->ahci->dev;
    uint8_t *data = command->port->drive.data;
    unsigned done = 0;
    while (done < *length) {
        uint64_t at = 0;
        uint32_t room = 0;
        enum prd_result result = prd_get(command, &at, &room);
        if (result == PRD_END)
            break;
        uint32_t n = MIN(room, *length - done);
        if (result == PRD_BAD || !(to_host ? pci_write(dev, GPA(at), data + done, n)
                                           : pci_read(dev, GPA(at), data + done, n))) {
            command_bad_address(command);
            return false;
        }
        prd_advance(&command->place, room, n);
        done += n;
    }
    command->moved += done;
    *length = done;
    return true;
}

static bool add_range(struct command *command, uint64_t at, uint32_t length)
{
    struct range *last = command->ranges + command->range_count;
    if (command->range_count && last[-1].at + last[-1].length == at) {
        last[-1].length += length;
        return true;
    }
    if (command->range_count == AHCI_SPANS)
        return false;
    *last = (struct range){ at, length };
    command->range_count++;
    return true;
}

/* Takes `excess` bytes off the end of what was gathered. */
static void trim(struct command *command, unsigned *spans, uint64_t excess)
{
    for (uint64_t left = excess; left;) {
        struct iovec *last = &command->iov[*spans - 1];
        size_t n = MIN(last->iov_len, left);
        last->iov_len -= n;
        left -= n;
        *spans -= !last->iov_len;
    }
    for (uint64_t left = excess; left;) {
        struct range *last = &command->ranges[command->range_count - 1];
        uint64_t n = MIN(last->length, left);
        last->length -= n;
        left -= n;
        command->range_count -= !last->length;
    }
}

uint64_t prdt_gather(struct command *command, uint64_t want, unsigned *spans,
                     enum prd_result *result)
{
    struct guest *guest = command->port->ahci->dev.board->guest;
    struct place whole = command->place; /* behind the last whole sector */
    uint64_t total = 0, at = 0;
    uint32_t room = 0;
    *spans = 0;
    command->range_count = 0;
    *result = PRD_OK;
    for (unsigned i = 0; i < PIECE_ENTRIES && total < want; i++) {
        *result = prd_get(command, &at, &room);
        if (*result != PRD_OK)
            break;
        uint32_t n = (uint32_t)MIN(room, want - total);
        *result = PRD_BAD;
        if (command->range_count == AHCI_SPANS ||
            !guest_span(guest, GPA(at), n, command->to_host, command->iov, spans, AHCI_SPANS) ||
            !add_range(command, at, n))
            break;
        *result = PRD_OK;
        uint64_t boundary = (total + n) - (total + n) % SECTOR;
        if (boundary > total) {
            whole = command->place;
            prd_advance(&whole, room, (uint32_t)(boundary - total));
        }
        total += n;
        prd_advance(&command->place, room, n);
    }
    trim(command, spans, total % SECTOR);
    command->place = whole;
    return total - total % SECTOR;
}
