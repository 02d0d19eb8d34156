/* The state in which a vCPU enters a kernel that no firmware started: registers of the first one
 * (base/entry.h), and what firmware sets up alike on all. Intel SDM volume 3, chapters 3 and 12. */
#include "base/entry.h"

#include "base/error.h"
#include "vcpu/vcpu.h"

enum {
    CR0_PE = 1,
    CR0_ET = 0x10,
    CR4_PAE = 0x20,
    EFER_LME = 0x100,
    EFER_LMA = 0x400,
    FLAGS = 2, /* the bit that is always 1; interrupts off */
    TSS_LIMIT = 0x67,
};
#define CR0_PG UINT64_C(0x80000000)

/* The kinds of segments (3.4.5.1, 3.5). */
enum { DATA_WRITABLE = 3, CODE_READABLE = 11, LDT = 2, TSS_BUSY = 11 };

/* MTRRs as SeaBIOS sets them: RAM is cached, video memory and what is not RAM below 4 GiB is not,
 * the BIOS area is write-protected (SDM volume 3, 12.11.2). */
enum {
    MTRR_BASE_0 = 0x200,
    MTRR_MASK_0 = 0x201,
    MTRR_64K = 0x250,
    MTRR_16K = 0x258,
    MTRR_16K_VIDEO = 0x259,
    MTRR_4K = 0x268,
    MTRR_4K_COUNT = 8,
    MTRR_DEFAULT = 0x2ff,
};
#define EIGHT_OF(type) (UINT64_C(0x0101010101010101) * (type))
enum { UNCACHED = 0, WRITE_PROTECTED = 5, WRITE_BACK = 6 };
enum { MTRR_ON = 0x800, MTRR_FIXED_ON = 0x400 };

static void add_msr(struct kvm_msr_values *values, uint32_t index, uint64_t value)
{
    values->entry[values->head.nmsrs++] = (struct kvm_msr_entry){ .index = index, .data = value };
}

bool vcpu_set_mtrrs(struct vcpu *vcpu, GError **error)
{
    g_autofree struct kvm_msr_values *values = g_new0(struct kvm_msr_values, 1);
    uint64_t all = (UINT64_C(1) << vcpu->address_bits) - 1;
    add_msr(values, MTRR_64K, EIGHT_OF(WRITE_BACK));
    add_msr(values, MTRR_16K, EIGHT_OF(WRITE_BACK));
    add_msr(values, MTRR_16K_VIDEO, EIGHT_OF(UNCACHED));
    for (uint32_t i = 0; i < MTRR_4K_COUNT; i++)
        add_msr(values, MTRR_4K + i, EIGHT_OF(WRITE_PROTECTED));
    add_msr(values, MTRR_BASE_0, LOW_RAM_LIMIT | UNCACHED);
    add_msr(values, MTRR_MASK_0, (all & ~(HIGH_RAM_BASE - LOW_RAM_LIMIT - 1)) | MTRR_ON);
    add_msr(values, MTRR_DEFAULT, MTRR_ON | MTRR_FIXED_ON | WRITE_BACK);
    int done = kvm_vcpu_set_msrs(&vcpu->kvm, values);
    return done == (int)values->head.nmsrs ||
           hv_fail(error, HV_HOST, "vCPU %u: KVM does not take its MTRR %#x", vcpu->id,
                   values->entry[MAX(done, 0)].index);
}

static struct kvm_segment flat(uint16_t selector, uint8_t type, bool wide)
{
    return (struct kvm_segment){
        .limit = UINT32_MAX,
        .selector = selector,
        .type = type,
        .present = 1,
        .db = !wide,
        .s = 1,
        .l = wide,
        .g = 1,
    };
}

static void set_flat(struct kvm_sregs *sregs, const struct entry *entry)
{
    bool wide = entry->mode == ENTRY_LONG;
    sregs->cs = flat(entry->code, CODE_READABLE, wide);
    sregs->ds = flat(entry->data, DATA_WRITABLE, false);
    sregs->es = sregs->fs = sregs->gs = sregs->ss = sregs->ds;
    sregs->tr = (struct kvm_segment){ .limit = TSS_LIMIT, .type = TSS_BUSY, .present = 1 };
    sregs->ldt = (struct kvm_segment){ .type = LDT, .unusable = 1 };
    sregs->gdt = (struct kvm_dtable){ .base = entry->gdt, .limit = entry->gdt_limit };
    sregs->idt = (struct kvm_dtable){ .base = 0 };
    sregs->cr0 = CR0_PE | CR0_ET | (wide ? CR0_PG : 0);
    sregs->cr3 = entry->cr3;
    sregs->cr4 = wide ? CR4_PAE : 0;
    sregs->efer = wide ? EFER_LME | EFER_LMA : 0;
}

static void set_real(struct kvm_sregs *sregs, const struct entry *entry)
{
    struct kvm_segment *const data[] = { &sregs->ds, &sregs->es, &sregs->fs, &sregs->gs,
                                         &sregs->ss };
    sregs->cs.selector = entry->code;
    sregs->cs.base = (uint64_t)entry->code << 4;
    for (size_t i = 0; i < G_N_ELEMENTS(data); i++) {
        data[i]->selector = entry->data;
        data[i]->base = (uint64_t)entry->data << 4;
    }
    sregs->cr0 = CR0_ET;
}

bool vcpu_enter(struct vcpu *vcpu, const struct entry *entry, GError **error)
{
    struct kvm_sregs sregs;
    const struct kvm_regs regs = {
        .rip = entry->ip,
        .rsp = entry->sp,
        .rax = entry->ax,
        .rbx = entry->bx,
        .rsi = entry->si,
        .rflags = FLAGS,
    };
    int result = kvm_vcpu_get_sregs(&vcpu->kvm, &sregs);
    if (result == 0) {
        if (entry->mode == ENTRY_REAL)
            set_real(&sregs, entry);
        else
            set_flat(&sregs, entry);
        result = kvm_vcpu_set_sregs(&vcpu->kvm, &sregs);
    }
    if (result == 0)
        result = kvm_vcpu_set_regs(&vcpu->kvm, &regs);
    return result == 0 || hv_fail(error, HV_HOST, "KVM does not take the kernel's registers: %s",
                                  g_strerror(-result));
}
