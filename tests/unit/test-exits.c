/* What vCPUs do when the guest leaves (exits.c), the CPUID they show (cpuid.c) and their state as
 * bytes (parts.c), without KVM: the functions of libkvm that these call are this file's. */
#include "base/error.h"
#include "memory/bus.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <string.h>

/* --- libkvm, as far as it is needed here ----------------------------------------------------- */

enum { FAKE_MSRS = 5, FAKE_PARTS = 2 };

static struct {
    int registers; /* the result of reading them */
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint8_t part[FAKE_PARTS][16];
    int part_result;
    uint64_t msr[FAKE_MSRS];
    uint32_t refused; /* this MSR is listed and neither read nor written */
} fake;

const struct kvm_part kvm_parts[] = { { "first", 10, 20, 16 }, { "second", 11, 21, 5 } };
const size_t kvm_part_count = FAKE_PARTS, kvm_part_max = 16;

int kvm_vcpu_get_regs(const struct kvm_vcpu *vcpu, struct kvm_regs *regs)
{
    (void)vcpu;
    *regs = fake.regs;
    return fake.registers;
}

int kvm_vcpu_get_sregs(const struct kvm_vcpu *vcpu, struct kvm_sregs *sregs)
{
    (void)vcpu;
    *sregs = fake.sregs;
    return fake.registers;
}

/* Linear addresses from 0x10000 on are those of physical memory, below it nothing is mapped. */
int kvm_vcpu_translate(const struct kvm_vcpu *vcpu, uint64_t linear, uint64_t *physical)
{
    (void)vcpu;
    *physical = linear - 0x10000;
    return linear < 0x10000 ? -EFAULT : 0;
}

int kvm_vcpu_get_part(const struct kvm_vcpu *vcpu, const struct kvm_part *part, void *to)
{
    (void)vcpu;
    memcpy(to, fake.part[part - kvm_parts], part->size);
    return fake.part_result;
}

int kvm_vcpu_set_part(const struct kvm_vcpu *vcpu, const struct kvm_part *part, const void *from)
{
    (void)vcpu;
    if (fake.part_result == 0)
        memcpy(fake.part[part - kvm_parts], from, part->size);
    return fake.part_result;
}

int kvm_vcpu_get_msrs(const struct kvm_vcpu *vcpu, struct kvm_msr_values *values)
{
    (void)vcpu;
    uint32_t i;
    for (i = 0; i < values->head.nmsrs && values->entry[i].index != fake.refused; i++)
        values->entry[i].data = fake.msr[values->entry[i].index];
    return (int)i;
}

int kvm_vcpu_set_msrs(const struct kvm_vcpu *vcpu, const struct kvm_msr_values *values)
{
    (void)vcpu;
    uint32_t i;
    for (i = 0; i < values->head.nmsrs && values->entry[i].index != fake.refused; i++)
        if (values->entry[i].index < FAKE_MSRS)
            fake.msr[values->entry[i].index] = values->entry[i].data;
    return (int)i;
}

/* --- a vCPU that left the guest -------------------------------------------------------------- */

enum { PORT = 0x500, WINDOW = 0xd0000000, DATA = 4096 };

struct vcpu_test {
    struct vcpu_host host;
    struct vcpu vcpu;
    union {
        struct kvm_run run;
        uint8_t page[2 * 4096]; /* the data of port accesses follow the structure, as in KVM */
    } shared;
    char *report;
    unsigned reports;

    uint64_t written[8], next;
    unsigned writes, reads, eois;
    uint64_t last_offset;
    unsigned last_width, last_eoi;
};

static struct vcpu_test *the_test; /* for the region's functions, which get a device */

static uint64_t count_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)dev;
    the_test->last_offset = offset;
    the_test->last_width = width;
    the_test->reads++;
    return the_test->next++;
}

static void keep_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)dev;
    the_test->last_offset = offset;
    the_test->last_width = width;
    the_test->written[the_test->writes++ % 8] = value;
}

static void keep_eoi(struct device *dev, uint8_t vector)
{
    (void)dev;
    the_test->eois++;
    the_test->last_eoi = vector;
}

static const struct region ports = {
    REGION_PORTS, PORT, 4, W8 | W16 | W32, count_read, keep_write
};
static const struct region window = { REGION_MMIO,          WINDOW,     64,
                                      W8 | W16 | W32 | W64, count_read, keep_write };
static const struct irq_controller controller = { .eoi = keep_eoi };
static const struct device_class fake_class = { .name = "fake", .controller = &controller };
static struct device fake_device = { .class = &fake_class, .name = (char *)"fake" };

static void crashed(void *opaque, const char *report)
{
    struct vcpu_test *t = opaque;
    g_free(t->report);
    t->report = g_strdup(report);
    t->reports++;
}

static const struct vcpu_events events = { crashed };

static struct vcpu_test *make(void)
{
    struct vcpu_test *t = g_new0(struct vcpu_test, 1);
    memset(&fake, 0, sizeof fake);
    fake.refused = UINT32_MAX;
    t->host = (struct vcpu_host){
        .bus = bus_new(), .guest = guest_new(1 << 20, NULL), .events = &events, .opaque = t
    };
    guest_slot_set(t->host.guest, guest_slot_new(t->host.guest), GPA(0), 1 << 20,
                   guest_ram_host(t->host.guest, GPA(0), 1 << 20), 0);
    t->vcpu =
        (struct vcpu){ .host = &t->host, .id = 3, .kvm = { .fd = -1, .run = &t->shared.run } };
    bus_add_reader(t->host.bus, &t->vcpu.reader);
    bus_map(t->host.bus, &fake_device, &fake_device.lock, &ports, SPACE_PORTS, PORT);
    bus_map(t->host.bus, &fake_device, &fake_device.lock, &window, SPACE_MMIO, WINDOW);
    the_test = t;
    return t;
}

static void done(struct vcpu_test *t)
{
    bus_free(t->host.bus);
    guest_free(t->host.guest);
    g_free(t->report);
    g_free(t);
}

static enum exit_result leave(struct vcpu_test *t, unsigned reason)
{
    t->shared.run.exit_reason = reason;
    return exit_handle(&t->vcpu);
}

static uint8_t *port_access(struct vcpu_test *t, unsigned direction, unsigned size, unsigned count)
{
    t->shared.run.io.direction = (uint8_t)direction;
    t->shared.run.io.size = (uint8_t)size;
    t->shared.run.io.port = PORT;
    t->shared.run.io.count = count;
    t->shared.run.io.data_offset = DATA;
    return t->shared.page + DATA;
}

/* --- port and memory accesses ---------------------------------------------------------------- */

static void port_one(void)
{
    struct vcpu_test *t = make();
    uint8_t *data = port_access(t, KVM_EXIT_IO_OUT, 2, 1);
    data[0] = 0x34, data[1] = 0x12, data[2] = 0xee;
    g_assert_cmpint(leave(t, KVM_EXIT_IO), ==, EXIT_RESUME);
    g_assert_cmpuint(t->writes, ==, 1);
    g_assert_cmphex(t->written[0], ==, 0x1234);
    g_assert_cmpuint(t->last_width, ==, 2);

    t->next = 0xa1b2c3d4;
    data = port_access(t, KVM_EXIT_IO_IN, 4, 1);
    memset(data, 0xee, 8);
    g_assert_cmpint(leave(t, KVM_EXIT_IO), ==, EXIT_RESUME);
    const uint8_t answer[8] = { 0xd4, 0xc3, 0xb2, 0xa1, 0xee, 0xee, 0xee, 0xee };
    g_assert_cmpmem(data, 8, answer, 8); /* and not a byte more */
    done(t);
}

/* rep outs and rep ins (api.rst, KVM_EXIT_IO): `count` accesses of one port, data side by side. */
static void port_string(void)
{
    struct vcpu_test *t = make();
    uint16_t *words = (uint16_t *)port_access(t, KVM_EXIT_IO_OUT, 2, 3);
    words[0] = 0x1111, words[1] = 0x2222, words[2] = 0x3333;
    g_assert_cmpint(leave(t, KVM_EXIT_IO), ==, EXIT_RESUME);
    g_assert_cmpuint(t->writes, ==, 3);
    g_assert_cmphex(t->written[0], ==, 0x1111);
    g_assert_cmphex(t->written[1], ==, 0x2222);
    g_assert_cmphex(t->written[2], ==, 0x3333);
    g_assert_cmpuint(t->last_offset, ==, 0); /* the port does not move */

    t->next = 7;
    uint8_t *bytes = port_access(t, KVM_EXIT_IO_IN, 1, 4096); /* a whole page of data */
    g_assert_cmpint(leave(t, KVM_EXIT_IO), ==, EXIT_RESUME);
    g_assert_cmpuint(t->reads, ==, 4096);
    for (unsigned i = 0; i < 4096; i++)
        g_assert_cmphex(bytes[i], ==, (7 + i) & 0xff);

    port_access(t, KVM_EXIT_IO_IN, 1, 0);
    g_assert_cmpint(leave(t, KVM_EXIT_IO), ==, EXIT_RESUME);
    g_assert_cmpuint(t->reads, ==, 4096);
    done(t);
}

static void nobody_there(void)
{
    struct vcpu_test *t = make();
    uint8_t *data = port_access(t, KVM_EXIT_IO_IN, 4, 1);
    t->shared.run.io.port = 0x600;
    memset(data, 0, 4);
    g_assert_cmpint(leave(t, KVM_EXIT_IO), ==, EXIT_RESUME);
    g_assert_cmphex(*(uint32_t *)data, ==, 0xffffffff);
    t->shared.run.mmio.phys_addr = 0xe0000000;
    t->shared.run.mmio.len = 4;
    t->shared.run.mmio.is_write = 0;
    g_assert_cmpint(leave(t, KVM_EXIT_MMIO), ==, EXIT_RESUME);
    g_assert_cmphex(t->shared.run.mmio.data[3], ==, 0xff);
    g_assert_cmpuint(t->reads + t->writes + t->reports, ==, 0);
    done(t);
}

static void memory(void)
{
    struct vcpu_test *t = make();
    struct kvm_run *run = &t->shared.run;
    for (unsigned width = 1; width <= 8; width *= 2) {
        run->mmio.phys_addr = WINDOW + 8;
        run->mmio.len = width;
        run->mmio.is_write = 1;
        memset(run->mmio.data, 0x11 * (int)width, 8);
        g_assert_cmpint(leave(t, KVM_EXIT_MMIO), ==, EXIT_RESUME);
        g_assert_cmpuint(t->last_width, ==, width);
        g_assert_cmpuint(t->last_offset, ==, 8);

        run->mmio.is_write = 0;
        memset(run->mmio.data, 0xee, 8);
        t->next = 0x0807060504030201;
        g_assert_cmpint(leave(t, KVM_EXIT_MMIO), ==, EXIT_RESUME);
        for (unsigned i = 0; i < 8; i++)
            g_assert_cmphex(run->mmio.data[i], ==, i < width ? i + 1 : 0xee);
    }
    g_assert_cmphex(t->written[1], ==, 0x2222);
    g_assert_cmphex(t->written[3], ==, 0x8888888888888888);
    /* A length that the structure has no room for is KVM's mistake, and no overrun. */
    run->mmio.len = 4096;
    g_assert_cmpint(leave(t, KVM_EXIT_MMIO), ==, EXIT_RESUME);
    done(t);
}

static void end_of_interrupt(void)
{
    struct vcpu_test *t = make();
    t->shared.run.eoi.vector = 0x41;
    g_assert_cmpint(leave(t, KVM_EXIT_IOAPIC_EOI), ==, EXIT_RESUME); /* nobody to tell */
    t->host.ioapic = &fake_device;
    g_assert_cmpint(leave(t, KVM_EXIT_IOAPIC_EOI), ==, EXIT_RESUME);
    g_assert_cmpuint(t->eois, ==, 1);
    g_assert_cmphex(t->last_eoi, ==, 0x41);
    done(t);
}

static void nothing_to_do(void)
{
    static const unsigned reasons[] = { KVM_EXIT_INTR, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_HLT,
                                        KVM_EXIT_SET_TPR };
    struct vcpu_test *t = make();
    for (size_t i = 0; i < G_N_ELEMENTS(reasons); i++)
        g_assert_cmpint(leave(t, reasons[i]), ==, EXIT_RESUME);
    g_assert_cmpuint(t->reads + t->writes + t->reports, ==, 0);
    done(t);
}

/* --- the end --------------------------------------------------------------------------------- */

static void says(struct vcpu_test *t, const char *what)
{
    if (!t->report || !strstr(t->report, what))
        g_error("no \"%s\" in: %s", what, t->report ? t->report : "no report");
}

static void report_has_all(void)
{
    struct vcpu_test *t = make();
    fake.regs =
        (struct kvm_regs){ .rip = 0x123, .rax = 0xfeedfacecafebeef, .r15 = 0x15, .rflags = 2 };
    fake.sregs.cs = (struct kvm_segment){ .selector = 0x10, .base = 0x20000 };
    fake.sregs.cr3 = 0x77000;
    guest_write(t->host.guest, GPA(0x10123), "\x0f\x0b\xf4", 3);
    g_assert_cmpint(leave(t, KVM_EXIT_SHUTDOWN), ==, EXIT_CRASHED);
    g_assert_cmpuint(t->reports, ==, 1);
    says(t, "vCPU 3: the guest crashed: triple fault\n");
    says(t, "rax feedfacecafebeef");
    says(t, "r15 0000000000000015");
    says(t, "rip 0000000000000123");
    says(t, "cs 0010 base 0000000000020000");
    says(t, "cr3 0000000000077000");
    says(t, "code 0f 0b f4 00"); /* at cs.base + rip */
    done(t);
}

static void code_not_there(void)
{
    struct vcpu_test *t = make();
    fake.regs.rip = 0x20; /* not mapped */
    leave(t, KVM_EXIT_SHUTDOWN);
    says(t, "code not in memory\n");
    fake.regs.rip = 0x10000 + (1 << 20) - 2; /* two bytes are in RAM */
    leave(t, KVM_EXIT_SHUTDOWN);
    says(t, "code 00 00 ...\n");
    fake.regs.rip = UINT64_MAX - 1; /* wraps */
    leave(t, KVM_EXIT_SHUTDOWN);
    says(t, "code");
    fake.registers = -EIO; /* a report without registers is one, too */
    leave(t, KVM_EXIT_SHUTDOWN);
    g_assert_cmpstr(t->report, ==, "vCPU 3: the guest crashed: triple fault\n");
    done(t);
}

static void unknown_exit(void)
{
    static const unsigned reasons[] = {
        KVM_EXIT_UNKNOWN, KVM_EXIT_DEBUG, KVM_EXIT_HYPERCALL, 63, 1000, UINT32_MAX
    };
    struct vcpu_test *t = make();
    for (size_t i = 0; i < G_N_ELEMENTS(reasons); i++) {
        g_autofree char *words = g_strdup_printf("KVM exit %u", reasons[i]);
        g_assert_cmpint(leave(t, reasons[i]), ==, EXIT_CRASHED);
        says(t, words);
        g_assert_cmpuint(t->reports, ==, i + 1);
    }
    done(t);
}

static void internal_error(void)
{
    struct vcpu_test *t = make();
    t->shared.run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    g_assert_cmpint(leave(t, KVM_EXIT_INTERNAL_ERROR), ==, EXIT_CRASHED);
    says(t, "KVM internal error 1: an instruction that KVM cannot emulate");
    t->shared.run.internal.suberror = 0;
    leave(t, KVM_EXIT_INTERNAL_ERROR);
    says(t, "KVM internal error 0: unknown");
    t->shared.run.internal.suberror = UINT32_MAX;
    leave(t, KVM_EXIT_INTERNAL_ERROR);
    says(t, "KVM internal error 4294967295: unknown");
    done(t);
}

static void fail_entry(void)
{
    struct vcpu_test *t = make();
    t->shared.run.fail_entry.hardware_entry_failure_reason = 0x80000021;
    g_assert_cmpint(leave(t, KVM_EXIT_FAIL_ENTRY), ==, EXIT_CRASHED);
    says(t, "0x80000021");
    t->shared.run.system_event.type = KVM_SYSTEM_EVENT_CRASH;
    g_assert_cmpint(leave(t, KVM_EXIT_SYSTEM_EVENT), ==, EXIT_CRASHED);
    says(t, "system event 3");
    exit_report_error(&t->vcpu, -EFAULT);
    says(t, "KVM cannot run the guest: Bad address");
    g_assert_cmpuint(t->reports, ==, 3);
    done(t);
}

/* --- CPUID ----------------------------------------------------------------------------------- */

enum { INDEXED = KVM_CPUID_FLAG_SIGNIFCANT_INDEX };

static struct kvm_cpuid_table *make_cpuid(bool amd)
{
    const struct kvm_cpuid_entry2 entries[] = {
        { .function = 0, .eax = 0x1f, .ebx = amd ? 0x68747541 : 0x756e6547 },
        { .function = 1, .ebx = 0xff110842, .ecx = 1u << 0 | 1u << 5, .edx = 1u << 28 | 1u << 4 },
        { .function = 4, .index = 0, .flags = INDEXED, .eax = 0xfc000121 }, /* level 1, data */
        { .function = 4, .index = 3, .flags = INDEXED, .eax = 0xfffc0163 }, /* level 3 */
        { .function = 4, .index = 4, .flags = INDEXED, .eax = 0 },
        { .function = 7, .index = 0, .flags = INDEXED, .ebx = 1u << 16 | 1u << 5 },
        { .function = 0xb, .index = 0, .flags = INDEXED, .eax = 9, .ebx = 9, .ecx = 0x100 },
        { .function = 0xb, .index = 1, .flags = INDEXED, .eax = 9, .ebx = 9, .ecx = 0x201 },
        { .function = 0xb, .index = 2, .flags = INDEXED, .eax = 9, .ebx = 9, .ecx = 2 },
        { .function = 0xd, .index = 0, .flags = INDEXED, .eax = 7 },
        { .function = 0xd, .index = 1, .flags = INDEXED, .eax = 0xf },
        { .function = 0x40000000, .ebx = 0x4b4d564b },
        { .function = 0x80000001, .ecx = 2 | 1, .edx = 1u << 20 },
        { .function = 0x80000008, .eax = 0x3028, .ecx = 0x50ff },
        { .function = 0x8000001e, .eax = 99, .ebx = 99, .ecx = 99 },
    };
    struct kvm_cpuid_table *table = g_new0(struct kvm_cpuid_table, 1);
    table->head.nent = G_N_ELEMENTS(entries);
    memcpy(table->entry, entries, sizeof entries);
    return table;
}

static struct kvm_cpuid_entry2 *leaf(struct kvm_cpuid_table *table, uint32_t function,
                                     uint32_t index)
{
    for (uint32_t i = 0; i < table->head.nent; i++)
        if (table->entry[i].function == function && table->entry[i].index == index)
            return &table->entry[i];
    g_assert_not_reached();
}

static void cpuid_mask(void)
{
    g_autofree struct kvm_cpuid_table *t = make_cpuid(false);
    GError *error = NULL;
    g_assert_true(cpuid_parse(t, "host", &error));
    g_assert_true(leaf(t, 1, 0)->ecx & 1u << 31); /* it is a hypervisor's */
    g_assert_true(leaf(t, 7, 0)->ebx & 1u << 16);

    g_assert_true(cpuid_parse(t, "host,-avx512f,-vmx,+nx,-xsaves", &error));
    g_assert_cmphex(leaf(t, 7, 0)->ebx, ==, 1u << 5); /* avx2 stays */
    g_assert_false(leaf(t, 1, 0)->ecx & 1u << 5);
    g_assert_true(leaf(t, 1, 0)->ecx & 1);
    g_assert_cmphex(leaf(t, 0xd, 1)->eax, ==, 7);
    g_assert_cmphex(leaf(t, 0xd, 0)->eax, ==, 7);        /* the other subleaf is not touched */
    g_assert_true(cpuid_parse(t, "host,-la57", &error)); /* taking what is not there */
    g_assert_true(cpuid_parse(t, "host,-xsave", &error));
    g_assert_cmphex(leaf(t, 7, 0)->ebx, ==, 0); /* avx2 needs avx, and avx needs xsave */

    static const struct {
        const char *cpu, *words;
        int status;
    } wrong[] = {
        { "", "begins with \"host\"", HV_USAGE },
        { "qemu64", "qemu64", HV_USAGE },
        { "host,avx512f", "begins with + or -", HV_USAGE },
        { "host,", "begins with + or -", HV_USAGE },
        { "host,-avx512g", "did you mean \"avx512f\"", HV_USAGE },
        { "host,-", "unknown feature", HV_USAGE },
        { "host,+sha_ni", "this host has no sha_ni", HV_HOST },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_assert_false(cpuid_parse(t, wrong[i].cpu, &error));
        g_assert_cmpint(hv_exit_status(error), ==, wrong[i].status);
        if (!strstr(error->message, wrong[i].words))
            g_error("--cpu %s: %s", wrong[i].cpu, error->message);
        g_clear_error(&error);
    }
}

/* SDM volume 2A CPUID: leaf 1 EBX[31:24] APIC ID, [23:16] logical processors; leaf 0BH per level
 * EAX[4:0] the shift to the next, EBX[15:0] processors, ECX[15:8] the type, EDX the x2APIC ID. */
static void cpuid_topology(void)
{
    static const struct {
        unsigned count, shift;
    } sizes[] = { { 1, 0 }, { 2, 1 }, { 3, 2 }, { 4, 2 }, { 5, 3 }, { 64, 6 } };
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        unsigned count = sizes[i].count, shift = sizes[i].shift;
        g_autofree struct kvm_cpuid_table *t = make_cpuid(false);
        for (unsigned id = 0; id < count; id++) { /* one table, filled in again and again */
            cpuid_for_vcpu(t, id, count);
            const struct kvm_cpuid_entry2 *one = leaf(t, 1, 0), *threads = leaf(t, 0xb, 0),
                                          *cores = leaf(t, 0xb, 1), *end = leaf(t, 0xb, 2);
            g_assert_cmpuint(one->ebx >> 24, ==, id);
            g_assert_cmpuint(one->ebx >> 16 & 0xff, ==, 1u << shift);
            g_assert_cmphex(one->ebx & 0xffff, ==, 0x0842);
            g_assert_cmpuint(one->edx >> 28 & 1, ==, count > 1);

            g_assert_cmpuint(threads->eax, ==, 0);
            g_assert_cmpuint(threads->ebx, ==, 1);
            g_assert_cmphex(threads->ecx, ==, 0x100);
            g_assert_cmpuint(cores->eax, ==, shift);
            g_assert_cmpuint(cores->ebx, ==, count);
            g_assert_cmphex(cores->ecx, ==, 0x201);
            g_assert_cmphex(end->ecx, ==, 2); /* type 0: no further level */
            g_assert_cmpuint(end->ebx, ==, 0);
            g_assert_cmpuint(threads->edx, ==, id);
            g_assert_cmpuint(cores->edx, ==, id);

            g_assert_cmpuint(leaf(t, 4, 0)->eax >> 14 & 0xfff, ==, 0); /* its own level 1 */
            g_assert_cmpuint(leaf(t, 4, 3)->eax >> 14 & 0xfff, ==, count - 1);
            g_assert_cmpuint(leaf(t, 4, 0)->eax >> 26, ==, (1u << shift) - 1);
            g_assert_cmphex(leaf(t, 4, 0)->eax & 0x3fff, ==, 0x121);
            g_assert_cmphex(leaf(t, 4, 4)->eax, ==, 0);
            g_assert_cmphex(leaf(t, 0x40000000, 0)->ebx, ==, 0x4b4d564b);
        }
    }
}

/* APM volume 3 E.4: 80000001 ECX[1] CmpLegacy, 80000008 ECX[7:0] cores - 1, [15:12] APIC ID bits.
 */
static void cpuid_amd(void)
{
    g_autofree struct kvm_cpuid_table *t = make_cpuid(true);
    cpuid_for_vcpu(t, 2, 3);
    g_assert_cmphex(leaf(t, 0x80000001, 0)->ecx, ==, 3);
    g_assert_cmphex(leaf(t, 0x80000008, 0)->ecx, ==, 0x2002);
    g_assert_cmpuint(leaf(t, 0x8000001e, 0)->eax, ==, 2);
    g_assert_cmpuint(leaf(t, 0x8000001e, 0)->ebx, ==, 2);
    cpuid_for_vcpu(t, 0, 1);
    g_assert_cmphex(leaf(t, 0x80000001, 0)->ecx, ==, 1);
    g_assert_cmphex(leaf(t, 0x80000008, 0)->ecx, ==, 0);
    g_autofree struct kvm_cpuid_table *empty = g_new0(struct kvm_cpuid_table, 1);
    cpuid_for_vcpu(empty, 0, 1);
    g_assert_true(cpuid_parse(empty, "host,-avx", NULL));
}

/* --- state ----------------------------------------------------------------------------------- */

static struct kvm_msr_names *make_names(void)
{
    struct kvm_msr_names *names = g_new0(struct kvm_msr_names, 1);
    names->head.nmsrs = FAKE_MSRS;
    for (uint32_t i = 0; i < FAKE_MSRS; i++) {
        names->index[i] = i;
        fake.msr[i] = 0x100 + i;
    }
    return names;
}

static void parts_round_trip(void)
{
    for (uint32_t refused = 0; refused <= FAKE_MSRS; refused++) {
        struct vcpu_test *t = make();
        g_autofree struct kvm_msr_names *names = make_names();
        g_autoptr(GByteArray) out = g_byte_array_new();
        GError *error = NULL;
        memset(fake.part[0], 0xaa, 16);
        memset(fake.part[1], 0xbb, 5);
        fake.refused = refused; /* the last round: none */
        g_assert_true(parts_save(&t->vcpu, names, out, &error));
        unsigned saved = FAKE_MSRS - (refused < FAKE_MSRS);
        g_assert_cmpuint(out->len, ==, 4 + 16 + 4 + 5 + 4 + saved * 12);

        memset(fake.part, 0, sizeof fake.part);
        memset(fake.msr, 0, sizeof fake.msr);
        g_byte_array_append(out, (const uint8_t *)"next", 4);
        const uint8_t *in = out->data;
        size_t length = out->len;
        g_assert_true(parts_load(&t->vcpu, &in, &length, &error));
        g_assert_cmpmem(in, (int)length, "next", 4); /* exactly its own bytes */
        g_assert_cmphex(fake.part[0][15], ==, 0xaa);
        g_assert_cmphex(fake.part[1][4], ==, 0xbb);
        for (uint32_t i = 0; i < FAKE_MSRS; i++)
            g_assert_cmphex(fake.msr[i], ==, i == refused ? 0 : 0x100 + i);
        done(t);
    }
}

/* A host that refuses an MSR that the file has takes all the others. */
static void parts_other_host(void)
{
    for (uint32_t refused = 0; refused < FAKE_MSRS; refused++) {
        struct vcpu_test *t = make();
        g_autofree struct kvm_msr_names *names = make_names();
        g_autoptr(GByteArray) out = g_byte_array_new();
        g_assert_true(parts_save(&t->vcpu, names, out, NULL));
        memset(fake.msr, 0, sizeof fake.msr);
        fake.refused = refused;
        const uint8_t *in = out->data;
        size_t length = out->len;
        g_assert_true(parts_load(&t->vcpu, &in, &length, NULL));
        for (uint32_t i = 0; i < FAKE_MSRS; i++)
            g_assert_cmphex(fake.msr[i], ==, i == refused ? 0 : 0x100 + i);
        done(t);
    }
}

static void parts_refused(void)
{
    struct vcpu_test *t = make();
    g_autofree struct kvm_msr_names *names = make_names();
    g_autoptr(GByteArray) out = g_byte_array_new();
    GError *error = NULL;
    g_assert_true(parts_save(&t->vcpu, names, out, &error));
    for (size_t cut = 0; cut < out->len; cut++) {
        g_autofree uint8_t *copy = g_memdup2(out->data, cut); /* for the sanitizer's eyes */
        const uint8_t *in = copy;
        size_t length = cut;
        g_assert_false(parts_load(&t->vcpu, &in, &length, &error));
        g_assert_true(g_str_has_prefix(error->message, "vCPU 3: "));
        g_clear_error(&error);
    }
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = { { 0, 15 }, { 3, 0xff }, { 20, 6 }, { 31, 0x7f }, { 30, 2 } };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) { /* sizes and counts that lie */
        uint8_t before = out->data[wrong[i].at];
        const uint8_t *in = out->data;
        size_t length = out->len;
        out->data[wrong[i].at] = wrong[i].value;
        g_assert_false(parts_load(&t->vcpu, &in, &length, &error));
        g_clear_error(&error);
        out->data[wrong[i].at] = before;
    }
    fake.part_result = -EINVAL;
    const uint8_t *in = out->data;
    size_t length = out->len;
    g_assert_false(parts_load(&t->vcpu, &in, &length, &error));
    g_assert_nonnull(strstr(error->message, "KVM does not take its first"));
    g_clear_error(&error);
    g_assert_false(parts_save(&t->vcpu, names, out, &error));
    g_assert_cmpint(hv_exit_status(error), ==, HV_HOST);
    g_clear_error(&error);
    done(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/exits/port", port_one);
    g_test_add_func("/exits/port-string", port_string);
    g_test_add_func("/exits/nobody-there", nobody_there);
    g_test_add_func("/exits/memory", memory);
    g_test_add_func("/exits/end-of-interrupt", end_of_interrupt);
    g_test_add_func("/exits/nothing-to-do", nothing_to_do);
    g_test_add_func("/exits/report", report_has_all);
    g_test_add_func("/exits/code-not-there", code_not_there);
    g_test_add_func("/exits/unknown", unknown_exit);
    g_test_add_func("/exits/internal-error", internal_error);
    g_test_add_func("/exits/fail-entry", fail_entry);
    g_test_add_func("/cpuid/mask", cpuid_mask);
    g_test_add_func("/cpuid/topology", cpuid_topology);
    g_test_add_func("/cpuid/amd", cpuid_amd);
    g_test_add_func("/parts/round-trip", parts_round_trip);
    g_test_add_func("/parts/other-host", parts_other_host);
    g_test_add_func("/parts/refused", parts_refused);
    return g_test_run();
}
