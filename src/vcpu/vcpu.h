/* Virtual CPUs: one thread each, and the states they go through.
 *
 *            start                    stop (any state)
 *   PAUSED ----------> RUNNING ---------------------------> STOPPED
 *     ^    <----------    |
 *     |       pause       | crash: KVM cannot go on
 *     |                   v
 *     |                CRASHED ------> (stop)
 *
 * A vCPU thread runs the guest, and the devices its exits touch, until a mail arrives; then it
 * completes the access it is in and parks. vcpus_pause returns when all are parked: only then may
 * others touch vCPU state or reset devices. Called from the machine's thread, but for what says
 * "any thread". */
#pragma once
#include "base/entry.h"
#include "bus/device.h"
#include "libkvm/kvm.h"

enum { MAX_VCPUS = 64 };

struct vcpus;

/* What the machine is told; called on a vCPU's thread with no lock held. */
struct vcpu_events {
    /* The guest cannot go on: why, the registers and the code bytes, as text. The vCPU is parked.
     */
    void (*crashed)(void *opaque, const char *report);
};

/* The machine's parts that exits reach. */
struct vcpu_host {
    const struct kvm *kvm;
    const struct kvm_vm *vm;
    struct bus *bus;
    struct guest *guest;
    struct device *pic;    /* acknowledged by vCPU 0; may be NULL */
    struct device *ioapic; /* told of EOIs; may be NULL */
    const struct vcpu_events *events;
    void *opaque;
};

/* Creates `count` vCPUs in reset state, parked. cpu: "host" and feature changes ("host,-avx512f").
 */
struct vcpus *vcpus_new(const struct vcpu_host *host, unsigned count, const char *cpu,
                        GError **error);
/* Stops and frees; NULL is allowed. */
void vcpus_free(struct vcpus *vcpus);

void vcpus_start(struct vcpus *vcpus);
void vcpus_pause(struct vcpus *vcpus);
/* Only while paused: back to the reset state. */
void vcpus_reset(struct vcpus *vcpus);
/* Only while paused, after vcpus_new or vcpus_reset: the first vCPU starts as `entry` says instead
 * of at the reset vector, and all are set up as firmware would leave them. */
bool vcpus_enter(struct vcpus *vcpus, const struct entry *entry, GError **error);
/* Any thread: asks all to park, without waiting (a guest asked for a reset: not one more step). */
void vcpus_hold(struct vcpus *vcpus);

/* Any thread: the PIC's INTR pin, as the end of its wire; leads to vCPU 0. */
struct irq_input vcpus_intr(struct vcpus *vcpus);

/* Only while paused: all of the architectural state, appended; and taken back. */
bool vcpus_save(struct vcpus *vcpus, GByteArray *out, GError **error);
bool vcpus_load(struct vcpus *vcpus, const uint8_t **in, size_t *length, GError **error);

/* What a vCPU does. A halted one without interrupts does nothing ever again, but for an NMI. */
enum vcpu_doing { VCPU_RUNS, VCPU_HALTED, VCPU_STUCK, VCPU_WAITS /* for the guest to start it */ };
struct vcpu_look {
    enum vcpu_doing doing;
    uint64_t address; /* linear, of the next instruction */
    unsigned bits;    /* of the code there: 16, 32 or 64 */
    unsigned ring;
};
/* Only while paused; id: below the count. */
bool vcpus_look(struct vcpus *vcpus, unsigned id, struct vcpu_look *look, GError **error);

/* --- inside src/vcpu ------------------------------------------------------------------------ */

enum vcpu_mail { MAIL_QUIT = 1, MAIL_PARK = 2, MAIL_INTR = 4 /* the PIC's pin is high */ };

struct vcpu {
    struct vcpus *set;
    const struct vcpu_host *host;
    unsigned id;
    struct kvm_vcpu kvm;
    GThread *thread;
    gpointer posix_thread;    /* a pthread_t, once the thread runs */
    struct bus_reader reader; /* its own thread only */
    GByteArray *pristine;     /* the reset state */
    unsigned address_bits;    /* of physical addresses, as its CPUID says */

    /* The mailbox, of enum vcpu_mail: any thread, atomic; read by its own before each entry. */
    guint mail;
    bool window;  /* its own thread: an exit was asked for when an interrupt can be injected */
    bool crashed; /* its own thread, or while parked */
};

/* What an exit wants of the loop. */
enum exit_result { EXIT_RESUME, EXIT_CRASHED };

/* Handles vcpu->kvm.run after KVM_RUN returned 0 (exits.c). */
enum exit_result exit_handle(struct vcpu *vcpu);
/* KVM_RUN itself failed. */
void exit_report_error(struct vcpu *vcpu, int error);

/* The CPUID table for vCPU `id` of `count` (cpuid.c), from what the host supports. */
bool cpuid_parse(struct kvm_cpuid_table *table, const char *cpu, GError **error);
void cpuid_for_vcpu(struct kvm_cpuid_table *table, unsigned id, unsigned count);
unsigned cpuid_address_bits(struct kvm_cpuid_table *table);

/* All state of a stopped vCPU, as bytes (parts.c). */
bool parts_save(struct vcpu *vcpu, const struct kvm_msr_names *msrs, GByteArray *out,
                GError **error);
bool parts_load(struct vcpu *vcpu, const uint8_t **in, size_t *length, GError **error);

/* What vcpus_enter does to all and to the first (enter.c). */
bool vcpu_set_mtrrs(struct vcpu *vcpu, GError **error);
bool vcpu_enter(struct vcpu *vcpu, const struct entry *entry, GError **error);
