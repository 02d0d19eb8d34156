/* What to do when the guest leaves: a table of handlers over struct kvm_run, one for each exit
 * reason (Linux Documentation/virt/kvm/api.rst section 5). Runs on the vCPU's thread. A reason
 * without a handler, and every KVM error, ends in a report and the state "crashed": never in
 * silence. */
#include "vcpu/vcpu.h"

typedef enum exit_result handler(struct vcpu *vcpu, struct kvm_run *run);

/* --- the report ----------------------------------------------------------------------------- */

static void append_segment(GString *out, const char *name, const struct kvm_segment *s)
{
    g_string_append_printf(out, "%s %04x base %016llx limit %08x type %x dpl %u l %u db %u\n", name,
                           s->selector, s->base, s->limit, s->type, s->dpl, s->l, s->db);
}

static void append_registers(GString *out, const struct kvm_regs *r, const struct kvm_sregs *s)
{
    g_string_append_printf(out,
                           "rax %016llx rbx %016llx rcx %016llx rdx %016llx\n"
                           "rsi %016llx rdi %016llx rbp %016llx rsp %016llx\n"
                           "r8  %016llx r9  %016llx r10 %016llx r11 %016llx\n"
                           "r12 %016llx r13 %016llx r14 %016llx r15 %016llx\n"
                           "rip %016llx rflags %08llx\n",
                           r->rax, r->rbx, r->rcx, r->rdx, r->rsi, r->rdi, r->rbp, r->rsp, r->r8,
                           r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15, r->rip,
                           r->rflags);
    append_segment(out, "cs", &s->cs);
    append_segment(out, "ss", &s->ss);
    append_segment(out, "ds", &s->ds);
    append_segment(out, "es", &s->es);
    append_segment(out, "tr", &s->tr);
    g_string_append_printf(out,
                           "gdt %016llx limit %04x  idt %016llx limit %04x\n"
                           "cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx efer %04llx\n",
                           s->gdt.base, s->gdt.limit, s->idt.base, s->idt.limit, s->cr0, s->cr2,
                           s->cr3, s->cr4, s->efer);
}

static void append_code(GString *out, struct vcpu *vcpu, uint64_t linear)
{
    enum { CODE_BYTES = 64 };
    g_string_append(out, "code");
    for (unsigned i = 0; i < CODE_BYTES; i++) {
        uint64_t physical;
        uint8_t byte;
        if (kvm_vcpu_translate(&vcpu->kvm, linear + i, &physical) < 0 ||
            !guest_read(vcpu->host->guest, GPA(physical), &byte, 1)) {
            g_string_append(out, i ? " ..." : " not in memory");
            break;
        }
        g_string_append_printf(out, " %02x", byte);
    }
    g_string_append_c(out, '\n');
}

static enum exit_result crash(struct vcpu *vcpu, const char *format, ...) G_GNUC_PRINTF(2, 3);
static enum exit_result crash(struct vcpu *vcpu, const char *format, ...)
{
    g_autoptr(GString) report = g_string_new(NULL);
    struct kvm_regs regs = { 0 };
    struct kvm_sregs sregs = { 0 };
    va_list args;
    g_string_append_printf(report, "vCPU %u: ", vcpu->id);
    va_start(args, format);
    g_string_append_vprintf(report, format, args);
    va_end(args);
    g_string_append_c(report, '\n');
    if (kvm_vcpu_get_regs(&vcpu->kvm, &regs) == 0 && kvm_vcpu_get_sregs(&vcpu->kvm, &sregs) == 0) {
        append_registers(report, &regs, &sregs);
        append_code(report, vcpu, sregs.cs.base + regs.rip);
    }
    vcpu->host->events->crashed(vcpu->host->opaque, report->str);
    return EXIT_CRASHED;
}

void exit_report_error(struct vcpu *vcpu, int error)
{
    crash(vcpu, "KVM cannot run the guest: %s", g_strerror(-error));
}

/* --- handlers ------------------------------------------------------------------------------- */

static void port_access(struct vcpu *vcpu, struct kvm_run *run, void *data)
{
    if (run->io.direction == KVM_EXIT_IO_IN)
        bus_in(vcpu->host->bus, &vcpu->reader, run->io.port, data, run->io.size);
    else
        bus_out(vcpu->host->bus, &vcpu->reader, run->io.port, data, run->io.size);
}

static enum exit_result exit_io(struct vcpu *vcpu, struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    uint32_t count = run->io.count; /* not 1 for string instructions */
    for (; G_UNLIKELY(count != 1) && count; count--, data += run->io.size)
        port_access(vcpu, run, data);
    if (count)
        port_access(vcpu, run, data);
    return EXIT_RESUME;
}

static enum exit_result exit_mmio(struct vcpu *vcpu, struct kvm_run *run)
{
    struct bus *bus = vcpu->host->bus;
    if (run->mmio.is_write)
        bus_store(bus, &vcpu->reader, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
    else
        bus_load(bus, &vcpu->reader, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
    return EXIT_RESUME;
}

static enum exit_result exit_nothing(struct vcpu *vcpu, struct kvm_run *run)
{
    (void)vcpu, (void)run; /* the loop looks at the mailbox and the interrupt window anyway */
    return EXIT_RESUME;
}

static enum exit_result exit_eoi(struct vcpu *vcpu, struct kvm_run *run)
{
    struct device *ioapic = vcpu->host->ioapic;
    if (ioapic) {
        g_mutex_lock(&ioapic->lock);
        ioapic->class->controller->eoi(ioapic, run->eoi.vector);
        g_mutex_unlock(&ioapic->lock);
    }
    return EXIT_RESUME;
}

static enum exit_result exit_shutdown(struct vcpu *vcpu, struct kvm_run *run)
{
    (void)run;
    return crash(vcpu, "the guest crashed: triple fault");
}

static enum exit_result exit_fail_entry(struct vcpu *vcpu, struct kvm_run *run)
{
    return crash(vcpu, "the CPU refuses the guest's state (hardware reason %#llx)",
                 run->fail_entry.hardware_entry_failure_reason);
}

static enum exit_result exit_internal_error(struct vcpu *vcpu, struct kvm_run *run)
{
    static const char *const reasons[] = {
        [KVM_INTERNAL_ERROR_EMULATION] = "an instruction that KVM cannot emulate",
        [KVM_INTERNAL_ERROR_SIMUL_EX] = "two exceptions at once",
        [KVM_INTERNAL_ERROR_DELIVERY_EV] = "an exit while an event was delivered",
        [KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an exit that KVM does not know",
    };
    unsigned reason = run->internal.suberror;
    const char *words = reason < G_N_ELEMENTS(reasons) ? reasons[reason] : NULL;
    return crash(vcpu, "KVM internal error %u: %s", reason, words ? words : "unknown");
}

static enum exit_result exit_system_event(struct vcpu *vcpu, struct kvm_run *run)
{
    return crash(vcpu, "the guest crashed: system event %u", run->system_event.type);
}

static handler *const exits[] = {
    [KVM_EXIT_IO] = exit_io,
    [KVM_EXIT_MMIO] = exit_mmio,
    [KVM_EXIT_INTR] = exit_nothing,
    [KVM_EXIT_IRQ_WINDOW_OPEN] = exit_nothing,
    [KVM_EXIT_HLT] = exit_nothing,
    [KVM_EXIT_SET_TPR] = exit_nothing,
    [KVM_EXIT_IOAPIC_EOI] = exit_eoi,
    [KVM_EXIT_SHUTDOWN] = exit_shutdown,
    [KVM_EXIT_FAIL_ENTRY] = exit_fail_entry,
    [KVM_EXIT_INTERNAL_ERROR] = exit_internal_error,
    [KVM_EXIT_SYSTEM_EVENT] = exit_system_event,
};

enum exit_result exit_handle(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->kvm.run;
    unsigned reason = run->exit_reason;
    if (reason < G_N_ELEMENTS(exits) && exits[reason])
        return exits[reason](vcpu, run);
    return crash(vcpu, "KVM exit %u, which hv does not know", reason);
}
