/* Between machine.c and machine-disks.c. */
#pragma once
#include "libkvm/kvm.h"
#include "machine/interrupts.h"
#include "machine/machine.h"
#include "machine/pc.h"

#include <stdatomic.h>

enum { MACHINE_LISTENERS = 4 };

/* Mail from other threads. */
enum mail {
    MAIL_RESET = 1 << 0,
    MAIL_POWER_OFF = 1 << 1,
    MAIL_EXIT = 1 << 2,
    MAIL_PANIC = 1 << 3,
    MAIL_CRASHED = 1 << 4,
    MAIL_DISK_FULL = 1 << 5,
    MAIL_EJECTED = 1 << 6,
    MAIL_SUSPEND = 1 << 7,
    MAIL_DISK_ERROR = 1 << 8,
    /* What the guest asked for, and waits for without another step. */
    MAIL_WISHES = MAIL_RESET | MAIL_POWER_OFF | MAIL_EXIT | MAIL_SUSPEND,
};

struct machine {
    const struct config *config;
    struct machine_files files;
    struct kvm kvm;
    struct kvm_vm vm;
    struct interrupts interrupts;
    struct board board;
    struct pc pc;
    struct vcpus *vcpus;

    enum display_state state;
    char *why;
    int exit_status;
    struct machine_listener listeners[MACHINE_LISTENERS];
    unsigned listener_count;

    /* any thread */
    atomic_uint mail;
    atomic_uint exit_value;
    int wake;
    GMutex lock; /* protects what follows; a leaf */
    char *report;
    struct disk *full;
    char *disk_error; /* the last one, not told yet */
    struct log_limit log;
};

/* Any thread. */
void machine_post(struct machine *m, unsigned mail);
/* The machine's thread. */
void machine_stop(struct machine *m);
void machine_set_state(struct machine *m, enum display_state state, const char *why);
void machine_tell(struct machine *m, const char *name, const char *text);

/* machine-disks.c */
void machine_watch_disks(struct machine *m);
void machine_guest_ejected(struct machine *m);
void machine_disk_full(struct machine *m);
void machine_disk_failed(struct machine *m);
