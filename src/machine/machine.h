/* A machine: RAM, buses, devices and vCPUs, and the states they go through together.
 *
 *   created --start--> RUNNING <--pause/resume--> PAUSED
 *                         |  disk full: DISK_FULL, resumed when there is space again
 *                         |  the guest or KVM gave up: CRASHED (reset leads back)
 *                         '--> OFF (power off, debug-exit): the end, with an exit status
 *
 * All functions are called from the machine's own thread (its GMainContext), except where they say
 * "any thread". */
#pragma once
#include "base/display-protocol.h"
#include "bus/device.h"
#include "machine/config.h"
#include "machine/drives.h"
#include "machine/nic.h"
#include "net/net.h"
#include "vcpu/vcpu.h"

struct boot_kernel;
struct machine;
struct host_stream;

/* Who wants to know about the machine; called on its thread. */
struct machine_listener {
    void (*state)(void *opaque, enum display_state state, const char *why);
    void (*event)(void *opaque, const char *name, const char *text); /* reset, panic, eject ... */
    void *opaque;
};

/* What the machine is made of, beside its settings: open files. */
struct machine_files {
    int kvm;
    GBytes *firmware, *vga_rom;       /* at page boundaries */
    GBytes *nic_rom;                  /* to boot from the network with; NULL: none */
    const struct boot_kernel *kernel; /* its files and its text; NULL: the firmware boots */
    struct drives *drives;
    struct host_stream *serial;       /* COM1; NULL: leads nowhere */
    struct host_stream *serial2;      /* COM2, which leads out only; NULL: nowhere */
    struct host_stream *firmware_log; /* port 0x402 */
    struct host_socket *vsock;        /* the host's side of virtio-vsock */
    int net, capture; /* what the network card leads to, and a file for its packets; -1: nothing */
    bool net_tap;     /* it is a tap device */
    unsigned vhosts;  /* how many pairs of its queues the kernel can serve */
    int vhost[NIC_PAIRS_MAX], net_queue[NIC_PAIRS_MAX]; /* net_queue[0]: -1, it is `net` */
    int images; /* where it writes the identities of its disks when they change; -1: nowhere */
};

struct machine *machine_new(const struct config *config, const struct machine_files *files,
                            GError **error);

void machine_listen(struct machine *machine, const struct machine_listener *listener);

void machine_start(struct machine *machine);
/* What each vCPU does at this moment; it stands still for that. `looks` has room for all of them.
 */
bool machine_look(struct machine *machine, struct vcpu_look *looks, GError **error);
void machine_pause(struct machine *machine);
void machine_resume(struct machine *machine);
void machine_reset(struct machine *machine);
/* The power button; nothing happens when the guest does not listen. */
void machine_press_power(struct machine *machine);
/* It ends: what is in flight to the disks is finished and synced. `status` is hv's. */
void machine_power_off(struct machine *machine, int status);
/* The same because somebody wants it, whatever the guest does: a disk that is volatile
 * (block/volatile.h) loses what it may. */
void machine_pull_plug(struct machine *machine);

enum display_state machine_state(const struct machine *machine);
const char *machine_why(const struct machine *machine); /* why it is not running; "" */
int machine_exit_status(const struct machine *machine); /* once it is OFF */
/* Once it is OFF, right before the process ends: its images are left complete. */
void machine_close_disks(struct machine *machine);
const struct config *machine_config(const struct machine *machine);

struct device *machine_display(struct machine *machine);
/* All devices, in the order of the parts list. */
const GPtrArray *machine_devices(struct machine *machine);
struct board *machine_board(struct machine *machine);

/* Where the display device says that its picture changed. Before machine_start. */
void machine_set_screen(struct machine *machine, struct screen *screen);

/* Takes the medium out of the first drive of the kind that has one. */
bool machine_eject(struct machine *machine, enum medium kind, GError **error);
/* Puts a disk (a CD: read-only) into the first drive of the kind, in place of what is there. It is
 * the machine's from then on; on failure it stays the caller's. */
bool machine_insert(struct machine *machine, enum medium kind, struct disk *disk, GError **error);

struct drives *machine_drives(struct machine *machine);

/* The cable of the network card goes in or out. */
bool machine_set_cable(struct machine *machine, bool in, GError **error);

/* What its network card's cable does wrong (net/net.h); false: it has no card. */
bool machine_net_faults(struct machine *machine, struct net_faults *faults);
bool machine_set_net_faults(struct machine *machine, const struct net_faults *faults,
                            GError **error);

/* A counter that moves with every disk request (the lamp). Any thread. */
uint32_t machine_disk_activity(struct machine *machine);
