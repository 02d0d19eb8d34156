/* The vCPU threads; see vcpu.h for the states and who may call what. */
#include "vcpu/vcpu.h"

#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

/* Interrupts KVM_RUN; its handler does nothing. */
#define SIGKICK (SIGRTMIN + 1)

struct vcpus {
    struct vcpu_host host;
    unsigned count;
    struct vcpu cpu[MAX_VCPUS];
    struct kvm_msr_names msrs;

    GMutex lock; /* protects `parked`; never taken with another lock held */
    GCond changed;
    unsigned parked;
};

/* --- the thread ----------------------------------------------------------------------------- */

static void kick(struct vcpu *vcpu)
{
    pthread_t thread = (pthread_t)g_atomic_pointer_get(&vcpu->posix_thread);
    if (thread && pthread_equal(thread, pthread_self()))
        return; /* it reads its mail before it enters the guest */
    kvm_vcpu_set_immediate_exit(&vcpu->kvm, true);
    if (thread)
        pthread_kill(thread, SIGKICK);
}

/* The access that the last exit was for is not complete until KVM_RUN is entered once more. */
static void complete_access(struct vcpu *vcpu)
{
    kvm_vcpu_set_immediate_exit(&vcpu->kvm, true);
    while (kvm_vcpu_run(&vcpu->kvm) == 0)
        if (exit_handle(vcpu) != EXIT_RESUME)
            break;
}

static void park(struct vcpu *vcpu)
{
    struct vcpus *set = vcpu->set;
    complete_access(vcpu);
    g_mutex_lock(&set->lock);
    set->parked++;
    g_cond_broadcast(&set->changed);
    while ((g_atomic_int_get(&vcpu->mail) & (MAIL_PARK | MAIL_QUIT)) == MAIL_PARK)
        g_cond_wait(&set->changed, &set->lock);
    set->parked--;
    g_mutex_unlock(&set->lock);
}

/* Gives the PIC's interrupt to the CPU when it can take it, else asks for an exit when it can. */
static void inject(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->kvm.run;
    struct device *pic = vcpu->host->pic;
    bool pending = g_atomic_int_get(&vcpu->mail) & MAIL_INTR;
    if (pending && run->ready_for_interrupt_injection) {
        g_mutex_lock(&pic->lock);
        uint8_t vector = pic->class->controller->acknowledge(pic);
        g_mutex_unlock(&pic->lock);
        kvm_vcpu_interrupt(&vcpu->kvm, vector);
        run->ready_for_interrupt_injection = 0;
        pending = g_atomic_int_get(&vcpu->mail) & MAIL_INTR;
    }
    run->request_interrupt_window = vcpu->window = pending;
}

static void *run_vcpu(void *data)
{
    struct vcpu *vcpu = data;
    g_atomic_pointer_set(&vcpu->posix_thread, (void *)pthread_self());
    for (;;) {
        guint mail = g_atomic_int_get(&vcpu->mail);
        if (G_UNLIKELY(mail || vcpu->window)) {
            if (mail & MAIL_QUIT)
                return NULL;
            if (mail & MAIL_PARK) {
                park(vcpu);
                continue;
            }
            inject(vcpu);
        }
        int error = kvm_vcpu_run(&vcpu->kvm);
        if (G_LIKELY(error == 0) && exit_handle(vcpu) == EXIT_RESUME)
            continue;
        if (error == -EINTR || error == -EAGAIN) {
            /* Cleared before the mailbox is read again: mail that comes later sets it anew. */
            kvm_vcpu_set_immediate_exit(&vcpu->kvm, false);
            continue;
        }
        if (error < 0)
            exit_report_error(vcpu, error);
        vcpu->crashed = true;
        g_atomic_int_or(&vcpu->mail, MAIL_PARK);
    }
}

static void kicked(int signal)
{
    (void)signal;
}

static void catch_kicks(void)
{
    struct sigaction action = { .sa_handler = kicked };
    sigaction(SIGKICK, &action, NULL);
}

/* --- the set -------------------------------------------------------------------------------- */

static bool create(struct vcpus *set, unsigned id, unsigned count, struct kvm_cpuid_table *cpuid,
                   GError **error)
{
    struct vcpu *vcpu = &set->cpu[id];
    *vcpu = (struct vcpu){ .set = set, .host = &set->host, .id = id, .mail = MAIL_PARK };
    int result = kvm_vcpu_create(set->host.vm, &vcpu->kvm, id);
    if (result < 0)
        return hv_fail(error, HV_HOST, "cannot create vCPU %u: %s", id, g_strerror(-result));
    set->count = id + 1;
    bus_add_reader(set->host.bus, &vcpu->reader);
    cpuid_for_vcpu(cpuid, id, count);
    vcpu->address_bits = cpuid_address_bits(cpuid);
    result = kvm_vcpu_set_cpuid(&vcpu->kvm, cpuid);
    if (result < 0)
        return hv_fail(error, HV_HOST, "KVM refuses the CPU features: %s", g_strerror(-result));
    vcpu->pristine = g_byte_array_new();
    return parts_save(vcpu, &set->msrs, vcpu->pristine, error);
}

struct vcpus *vcpus_new(const struct vcpu_host *host, unsigned count, const char *cpu,
                        GError **error)
{
    g_autofree struct kvm_cpuid_table *cpuid = g_new0(struct kvm_cpuid_table, 1);
    int result = kvm_supported_cpuid(host->kvm, cpuid);
    if (result < 0) {
        hv_fail(error, HV_HOST, "KVM does not say what CPUs it offers: %s", g_strerror(-result));
        return NULL;
    }
    if (!cpuid_parse(cpuid, cpu, error))
        return NULL;

    struct vcpus *set = g_new0(struct vcpus, 1);
    set->host = *host;
    g_mutex_init(&set->lock);
    g_cond_init(&set->changed);
    catch_kicks();
    result = kvm_msr_index_list(host->kvm, &set->msrs);
    bool ok = result == 0 ||
              hv_fail(error, HV_HOST, "KVM does not say what MSRs it has: %s", g_strerror(-result));
    for (unsigned id = 0; ok && id < count; id++)
        ok = create(set, id, count, cpuid, error);
    for (unsigned id = 0; ok && id < count; id++) {
        g_autofree char *name = g_strdup_printf("vcpu%u", id);
        set->cpu[id].thread = g_thread_new(name, run_vcpu, &set->cpu[id]);
    }
    if (!ok) {
        vcpus_free(set);
        return NULL;
    }
    return set;
}

void vcpus_free(struct vcpus *set)
{
    if (!set)
        return;
    for (unsigned i = 0; i < set->count; i++) {
        struct vcpu *vcpu = &set->cpu[i];
        if (vcpu->thread) {
            g_mutex_lock(&set->lock);
            g_atomic_int_or(&vcpu->mail, MAIL_QUIT);
            g_cond_broadcast(&set->changed);
            g_mutex_unlock(&set->lock);
            kick(vcpu);
            g_thread_join(vcpu->thread);
        }
        if (vcpu->pristine)
            g_byte_array_unref(vcpu->pristine);
        kvm_vcpu_close(&vcpu->kvm);
    }
    g_mutex_clear(&set->lock);
    g_cond_clear(&set->changed);
    g_free(set);
}

void vcpus_start(struct vcpus *set)
{
    g_mutex_lock(&set->lock);
    for (unsigned i = 0; i < set->count; i++) {
        if (set->cpu[i].crashed)
            continue;
        kvm_vcpu_clock_stopped(&set->cpu[i].kvm); /* -EINVAL without kvmclock: no matter */
        g_atomic_int_and(&set->cpu[i].mail, ~(guint)MAIL_PARK);
    }
    g_cond_broadcast(&set->changed);
    g_mutex_unlock(&set->lock);
}

void vcpus_hold(struct vcpus *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        g_atomic_int_or(&set->cpu[i].mail, MAIL_PARK);
        kick(&set->cpu[i]);
    }
}

void vcpus_pause(struct vcpus *set)
{
    vcpus_hold(set);
    g_mutex_lock(&set->lock);
    while (set->parked < set->count)
        g_cond_wait(&set->changed, &set->lock);
    g_mutex_unlock(&set->lock);
}

void vcpus_reset(struct vcpus *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        const uint8_t *in = set->cpu[i].pristine->data;
        size_t length = set->cpu[i].pristine->len;
        g_autoptr(GError) error = NULL;
        if (!parts_load(&set->cpu[i], &in, &length, &error))
            log_error("reset", "%s", error->message);
        /* As it was before the reset; a real-mode CPU with interrupts off takes none. */
        set->cpu[i].kvm.run->ready_for_interrupt_injection = 0;
        set->cpu[i].crashed = false;
    }
}

bool vcpus_enter(struct vcpus *set, const struct entry *entry, GError **error)
{
    for (unsigned i = 0; i < set->count; i++)
        if (!vcpu_set_mtrrs(&set->cpu[i], error))
            return false;
    return vcpu_enter(&set->cpu[0], entry, error);
}

static void intr(void *opaque, unsigned pin, bool level)
{
    struct vcpu *vcpu = opaque;
    (void)pin;
    if (level) {
        g_atomic_int_or(&vcpu->mail, MAIL_INTR);
        kick(vcpu);
    } else {
        g_atomic_int_and(&vcpu->mail, ~(guint)MAIL_INTR);
    }
}

struct irq_input vcpus_intr(struct vcpus *set)
{
    return (struct irq_input){ intr, &set->cpu[0], 0 };
}

bool vcpus_look(struct vcpus *set, unsigned id, struct vcpu_look *look, GError **error)
{
    enum { RFLAGS_IF = 1 << 9 }; /* SDM volume 1 section 3.4.3 */
    const struct kvm_vcpu *kvm = &set->cpu[id].kvm;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_mp_state state;
    int result = kvm_vcpu_get_regs(kvm, &regs);
    if (!result)
        result = kvm_vcpu_get_sregs(kvm, &sregs);
    if (!result)
        result = kvm_vcpu_get_mp_state(kvm, &state);
    if (result < 0)
        return hv_fail(error, HV_HOST, "KVM does not tell the state of vCPU %u: %s", id,
                       g_strerror(-result));
    bool halted = state.mp_state == KVM_MP_STATE_HALTED;
    *look = (struct vcpu_look){
        .doing = state.mp_state == KVM_MP_STATE_RUNNABLE ? VCPU_RUNS
                 : !halted                               ? VCPU_WAITS
                 : regs.rflags & RFLAGS_IF               ? VCPU_HALTED
                                                         : VCPU_STUCK,
        .address = sregs.cs.base + regs.rip,
        .bits = sregs.cs.l    ? 64
                : sregs.cs.db ? 32
                              : 16,
        .ring = sregs.ss.dpl,
    };
    return true;
}

bool vcpus_save(struct vcpus *set, GByteArray *out, GError **error)
{
    for (unsigned i = 0; i < set->count; i++)
        if (!parts_save(&set->cpu[i], &set->msrs, out, error))
            return false;
    return true;
}

bool vcpus_load(struct vcpus *set, const uint8_t **in, size_t *length, GError **error)
{
    for (unsigned i = 0; i < set->count; i++)
        if (!parts_load(&set->cpu[i], in, length, error))
            return false;
    return true;
}
