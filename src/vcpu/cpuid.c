/* CPUID: what the host offers, less what the user takes away, plus the topology of this machine.
 * Intel SDM volume 2A "CPUID", AMD APM volume 3 appendix E, Linux
 * Documentation/virt/kvm/x86/cpuid.rst.
 *
 * The topology is one socket of `count` cores with one thread each. */
#include "base/error.h"
#include "vcpu/vcpu.h"

#include <string.h>

enum cpuid_register { EAX, EBX, ECX, EDX };

struct feature {
    const char *name; /* as in /proc/cpuinfo */
    uint32_t leaf, subleaf;
    enum cpuid_register reg;
    unsigned bit;
    const char *needs; /* makes no sense without, and goes with it */
};

static const struct feature features[] = {
    /* leaf 1 */
    { "sse3", 1, 0, ECX, 0 },
    { "pclmulqdq", 1, 0, ECX, 1 },
    { "vmx", 1, 0, ECX, 5 },
    { "ssse3", 1, 0, ECX, 9 },
    { "fma", 1, 0, ECX, 12, "avx" },
    { "cx16", 1, 0, ECX, 13 },
    { "pcid", 1, 0, ECX, 17 },
    { "sse4_1", 1, 0, ECX, 19 },
    { "sse4_2", 1, 0, ECX, 20 },
    { "x2apic", 1, 0, ECX, 21 },
    { "movbe", 1, 0, ECX, 22 },
    { "popcnt", 1, 0, ECX, 23 },
    { "tsc_deadline_timer", 1, 0, ECX, 24 },
    { "aes", 1, 0, ECX, 25 },
    { "xsave", 1, 0, ECX, 26 },
    { "avx", 1, 0, ECX, 28, "xsave" },
    { "f16c", 1, 0, ECX, 29, "avx" },
    { "rdrand", 1, 0, ECX, 30 },
    { "hypervisor", 1, 0, ECX, 31 },
    { "pse", 1, 0, EDX, 3 },
    { "tsc", 1, 0, EDX, 4 },
    { "pae", 1, 0, EDX, 6 },
    { "cx8", 1, 0, EDX, 8 },
    { "sep", 1, 0, EDX, 11 },
    { "mtrr", 1, 0, EDX, 12 },
    { "cmov", 1, 0, EDX, 15 },
    { "pat", 1, 0, EDX, 16 },
    { "clflush", 1, 0, EDX, 19 },
    { "mmx", 1, 0, EDX, 23 },
    { "fxsr", 1, 0, EDX, 24 },
    { "sse", 1, 0, EDX, 25 },
    { "sse2", 1, 0, EDX, 26 },
    /* leaf 7 */
    { "fsgsbase", 7, 0, EBX, 0 },
    { "bmi1", 7, 0, EBX, 3 },
    { "avx2", 7, 0, EBX, 5, "avx" },
    { "smep", 7, 0, EBX, 7 },
    { "bmi2", 7, 0, EBX, 8 },
    { "erms", 7, 0, EBX, 9 },
    { "invpcid", 7, 0, EBX, 10 },
    { "avx512f", 7, 0, EBX, 16, "avx2" },
    { "avx512dq", 7, 0, EBX, 17, "avx512f" },
    { "rdseed", 7, 0, EBX, 18 },
    { "adx", 7, 0, EBX, 19 },
    { "smap", 7, 0, EBX, 20 },
    { "clflushopt", 7, 0, EBX, 23 },
    { "clwb", 7, 0, EBX, 24 },
    { "avx512cd", 7, 0, EBX, 28, "avx512f" },
    { "sha_ni", 7, 0, EBX, 29 },
    { "avx512bw", 7, 0, EBX, 30, "avx512f" },
    { "avx512vl", 7, 0, EBX, 31, "avx512f" },
    { "avx512_vbmi", 7, 0, ECX, 1, "avx512f" },
    { "umip", 7, 0, ECX, 2 },
    { "pku", 7, 0, ECX, 3, "xsave" },
    { "avx512_vbmi2", 7, 0, ECX, 6, "avx512f" },
    { "gfni", 7, 0, ECX, 8 },
    { "vaes", 7, 0, ECX, 9, "avx" },
    { "vpclmulqdq", 7, 0, ECX, 10, "avx" },
    { "avx512_vnni", 7, 0, ECX, 11, "avx512f" },
    { "avx512_bitalg", 7, 0, ECX, 12, "avx512f" },
    { "avx512_vpopcntdq", 7, 0, ECX, 14, "avx512f" },
    { "la57", 7, 0, ECX, 16 },
    { "rdpid", 7, 0, ECX, 22 },
    { "avx512_vp2intersect", 7, 0, EDX, 8, "avx512f" },
    { "amx_bf16", 7, 0, EDX, 22, "amx_tile" },
    { "avx512_fp16", 7, 0, EDX, 23, "avx512f" },
    { "amx_tile", 7, 0, EDX, 24, "xsave" },
    { "amx_int8", 7, 0, EDX, 25, "amx_tile" },
    { "arch_capabilities", 7, 0, EDX, 29 },
    { "avx_vnni", 7, 1, EAX, 4, "avx2" },
    { "avx512_bf16", 7, 1, EAX, 5, "avx512f" },
    /* leaf 0xd */
    { "xsaveopt", 0xd, 1, EAX, 0, "xsave" },
    { "xsavec", 0xd, 1, EAX, 1, "xsave" },
    { "xsaves", 0xd, 1, EAX, 3, "xsave" },
    /* extended leaves */
    { "lahf_lm", 0x80000001, 0, ECX, 0 },
    { "svm", 0x80000001, 0, ECX, 2 },
    { "abm", 0x80000001, 0, ECX, 5 },
    { "sse4a", 0x80000001, 0, ECX, 6 },
    { "nx", 0x80000001, 0, EDX, 20 },
    { "pdpe1gb", 0x80000001, 0, EDX, 26 },
    { "rdtscp", 0x80000001, 0, EDX, 27 },
    { "lm", 0x80000001, 0, EDX, 29 },
    { "constant_tsc", 0x80000007, 0, EDX, 8 },
    /* KVM's own */
    { "kvm_clock", 0x40000001, 0, EAX, 3 },
    { "kvm_pv_eoi", 0x40000001, 0, EAX, 6 },
    { "kvm_pv_unhalt", 0x40000001, 0, EAX, 7 },
    { "kvm_steal_time", 0x40000001, 0, EAX, 5 },
    { "kvm_async_pf", 0x40000001, 0, EAX, 4 },
};

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid_table *table, uint32_t leaf, uint32_t subleaf)
{
    for (uint32_t i = 0; i < table->head.nent; i++) {
        struct kvm_cpuid_entry2 *e = &table->entry[i];
        bool indexed = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        if (e->function == leaf && (!indexed || e->index == subleaf))
            return e;
    }
    return NULL;
}

static uint32_t *reg_of(struct kvm_cpuid_entry2 *e, enum cpuid_register reg)
{
    uint32_t *const regs[] = { &e->eax, &e->ebx, &e->ecx, &e->edx };
    return regs[reg];
}

/* Takes a feature away, and all that need it. */
static void clear_feature(struct kvm_cpuid_table *table, const struct feature *feature)
{
    struct kvm_cpuid_entry2 *e = find(table, feature->leaf, feature->subleaf);
    if (e)
        *reg_of(e, feature->reg) &= ~(1u << feature->bit);
    for (size_t i = 0; i < G_N_ELEMENTS(features); i++)
        if (features[i].needs && !strcmp(features[i].needs, feature->name))
            clear_feature(table, &features[i]);
}

static bool set_feature(struct kvm_cpuid_table *table, const char *name, bool on, GError **error)
{
    const char *names[G_N_ELEMENTS(features) + 1] = { NULL };
    for (size_t i = 0; i < G_N_ELEMENTS(features); i++) {
        const struct feature *f = &features[i];
        names[i] = f->name;
        if (strcmp(f->name, name))
            continue;
        struct kvm_cpuid_entry2 *e = find(table, f->leaf, f->subleaf);
        bool there = e && *reg_of(e, f->reg) & 1u << f->bit;
        if (on && !there)
            return hv_fail(error, HV_HOST, "--cpu: this host has no %s", name);
        if (!on)
            clear_feature(table, f);
        return true;
    }
    const char *near = hv_nearest(name, names);
    return hv_fail(error, HV_USAGE, "--cpu: unknown feature \"%s\"%s%s%s", name,
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

bool cpuid_parse(struct kvm_cpuid_table *table, const char *cpu, GError **error)
{
    g_auto(GStrv) words = g_strsplit(cpu, ",", -1);
    if (!words[0] || strcmp(words[0], "host"))
        return hv_fail(error, HV_USAGE, "--cpu %s: it begins with \"host\", as in host,-avx512f",
                       cpu);
    struct kvm_cpuid_entry2 *one = find(table, 1, 0);
    if (one)
        one->ecx |= 1u << 31 | 1u << 24; /* a hypervisor; its LAPIC has the TSC deadline mode */
    for (char **word = words + 1; *word; word++) {
        char sign = **word;
        if (sign != '+' && sign != '-')
            return hv_fail(error, HV_USAGE, "--cpu: \"%s\": a feature begins with + or -", *word);
        if (!set_feature(table, *word + 1, sign == '+', error))
            return false;
    }
    return true;
}

static unsigned bits_for(unsigned count)
{
    unsigned bits = 0;
    while (1u << bits < count)
        bits++;
    return bits;
}

/* Leaves 0xb and 0x1f: a level of threads (one in each core), then one of cores. */
static void set_levels(struct kvm_cpuid_table *table, uint32_t leaf, unsigned id, unsigned count)
{
    enum { LEVEL_THREADS = 1, LEVEL_CORES = 2 };
    for (uint32_t i = 0; i < table->head.nent; i++) {
        struct kvm_cpuid_entry2 *e = &table->entry[i];
        if (e->function != leaf)
            continue;
        e->edx = id;
        e->ecx = e->index;
        e->eax = e->ebx = 0;
        if (e->index == 0) {
            e->ebx = 1;
            e->ecx |= LEVEL_THREADS << 8;
        } else if (e->index == 1) {
            e->eax = bits_for(count);
            e->ebx = count;
            e->ecx |= LEVEL_CORES << 8;
        }
    }
}

/* Leaf 4 and AMD's 0x8000001d: which caches are shared by how many, and how many cores there are.
 */
static void set_caches(struct kvm_cpuid_entry2 *e, unsigned count)
{
    unsigned level = e->eax >> 5 & 7, sharing = level >= 3 ? count : 1;
    e->eax &= 0x3fff;
    if (e->eax & 0x1f)
        e->eax |= (sharing - 1) << 14;
    if (e->function == 4 && e->eax & 0x1f)
        e->eax |= ((1u << bits_for(count)) - 1) << 26;
}

static bool is_amd(struct kvm_cpuid_table *table)
{
    const struct kvm_cpuid_entry2 *zero = find(table, 0, 0);
    return zero && zero->ebx == 0x68747541; /* "Auth" */
}

/* Leaf 0x80000008; CPUs that lack it have 36 (Intel SDM volume 3, 4.1.4). */
unsigned cpuid_address_bits(struct kvm_cpuid_table *table)
{
    enum { WITHOUT_LEAF = 36, MOST = 52 };
    const struct kvm_cpuid_entry2 *e = find(table, 0x80000008, 0);
    unsigned bits = e ? e->eax & 0xff : 0;
    return bits >= WITHOUT_LEAF && bits <= MOST ? bits : WITHOUT_LEAF;
}

void cpuid_for_vcpu(struct kvm_cpuid_table *table, unsigned id, unsigned count)
{
    for (uint32_t i = 0; i < table->head.nent; i++) {
        struct kvm_cpuid_entry2 *e = &table->entry[i];
        switch (e->function) {
        case 1:
            e->ebx = (e->ebx & 0xffff) | id << 24 | MIN(1u << bits_for(count), 255) << 16;
            e->edx = (e->edx & ~(1u << 28)) | (count > 1 ? 1u << 28 : 0); /* HTT */
            break;
        case 4:
        case 0x8000001d:
            set_caches(e, count);
            break;
        case 0xb:
        case 0x1f:
            break; /* below, level by level */
        case 0x80000001:
            if (is_amd(table))
                e->ecx = (e->ecx & ~2u) | (count > 1 ? 2 : 0); /* CmpLegacy */
            break;
        case 0x80000008:
            e->ecx = (e->ecx & ~0xf0ffu) | bits_for(count) << 12 | (count - 1);
            break;
        case 0x8000001e:
            e->eax = id;
            e->ebx = id; /* the core; one thread in each */
            e->ecx = 0;  /* one node */
            break;
        }
    }
    set_levels(table, 0xb, id, count);
    set_levels(table, 0x1f, id, count);
}
