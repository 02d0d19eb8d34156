/* Linux's 16-bit entry (Linux Documentation/arch/x86/boot.rst, "Loading The Rest of The Kernel" and
 * "Running the Kernel"): for kernels that have no other. Their real-mode code asks a BIOS for the
 * memory map; firmware/services.S answers it. */
#include "boot/load.h"

#include <string.h>

static const uint8_t services[] = {
#include "services.inc"
};

/* In the F segment, behind the tables. */
enum { SERVICES = 0xf8000, SEGMENT = 0xf000, NOTHING = 0x40, VECTORS = 0x20, ENTRY_SIZE = 20 };

/* The numbers that the services give away: their offsets behind that of the first. */
enum { LOW_KIB = 0, HIGH_KIB = 2, BELOW_16M = 4, ABOVE_16M = 6, MAP_COUNT = 8, MAP_ENTRIES = 16 };

/* BIOS data that goes with text mode 3. */
enum { COLUMNS = 0x44a, ROWS = 0x484, FONT_HEIGHT = 0x485 };

static void put16(uint8_t *at, uint64_t value)
{
    uint16_t number = (uint16_t)value;
    memcpy(at, &number, sizeof number);
}

static uint16_t get16(const uint8_t *at)
{
    uint16_t number;
    memcpy(&number, at, sizeof number);
    return number;
}

static void put_vector(uint8_t *vectors, unsigned number, unsigned offset)
{
    put16(vectors + 4 * number, offset);
    put16(vectors + 4 * number + 2, SEGMENT);
}

static void put_numbers(const struct loader *l, uint8_t *numbers)
{
    uint64_t high = 0;
    for (unsigned i = 0; i < l->map_count; i++) {
        const struct map_entry *e = &l->map[i];
        uint8_t *entry = numbers + MAP_ENTRIES + ENTRY_SIZE * i;
        memcpy(entry, &e->base, 8);
        memcpy(entry + 8, &e->size, 8);
        memcpy(entry + 16, &e->type, 4);
        if (e->type == MAP_RAM && e->base == LEGACY_END)
            high = e->size;
    }
    put16(numbers + LOW_KIB, EBDA / KIB);
    put16(numbers + HIGH_KIB, MIN(high / KIB, 0xfc00));
    put16(numbers + BELOW_16M, MIN(high, 15 * MIB) / KIB);
    put16(numbers + ABOVE_16M, high > 15 * MIB ? (high - 15 * MIB) / (64 * KIB) : 0);
    put16(numbers + MAP_COUNT, l->map_count);
}

void real_services(struct loader *l)
{
    uint8_t *code = load_at(l, SERVICES, sizeof services), *data = load_at(l, 0, LOW_START);
    const uint8_t *list = code;
    memcpy(code, services, sizeof services);
    for (unsigned i = 0; i < BIOS_DATA / 4; i++)
        put_vector(data, i, (SERVICES & 0xffff) + NOTHING);
    for (; get16(list); list += 4)
        put_vector(data, get16(list) % VECTORS, get16(list + 2));
    put_numbers(l, code + (get16(list + 2) - (SERVICES & 0xffff)));
    data[COLUMNS] = 80;
    data[ROWS] = 24;
    data[FONT_HEIGHT] = 16;
}
