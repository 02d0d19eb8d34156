/* The machine; see machine.h for its states and who may call what.
 *
 * Devices and vCPUs run on their own threads. What they ask of the machine (reset, power off, ...)
 * is put into a mailbox of bits and carried out here, on the machine's thread, with the vCPUs
 * parked. */
#include "machine/machine-core.h"

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "block/disk.h"
#include "bus/pci.h"
#include "machine/direct.h"
#include "machine/drives.h"
#include "machine/streams.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <glib-unix.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    /* Four pages below the largest ROM (16 MiB below 4 GiB). */
    IDENTITY_MAP = 0xfeffc000,
    TSS_PAGES = 0xfeffd000,
};

/* A guest can bring about what KVM refuses, as often as it likes. */
static bool log_pass(struct machine *m)
{
    g_mutex_lock(&m->lock);
    bool pass = log_limit_pass(&m->log, "machine");
    g_mutex_unlock(&m->lock);
    return pass;
}

/* --- KVM behind guest memory and the board -------------------------------------------------- */

static int slot_set(void *opaque, unsigned slot, gpa at, uint64_t size, void *host, unsigned flags)
{
    struct machine *m = opaque;
    uint32_t kvm_flags = (flags & SLOT_READONLY ? KVM_MEM_READONLY : 0) |
                         (flags & SLOT_LOG ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    int result = kvm_vm_memory(&m->vm, slot, kvm_flags, at.raw, size, host);
    if (result < 0 && log_pass(m))
        log_warn("memory", "KVM refuses slot %u at %#" PRIx64 ": %s", slot, at.raw,
                 g_strerror(-result));
    return result;
}

static int slot_dirty(void *opaque, unsigned slot, uint64_t *bitmap)
{
    struct machine *m = opaque;
    return kvm_vm_dirty_log(&m->vm, slot, bitmap);
}

static const struct slot_provider slots = { slot_set, slot_dirty };

void machine_post(struct machine *m, unsigned mail)
{
    uint64_t one = 1;
    atomic_fetch_or(&m->mail, mail);
    ssize_t ignored = write(m->wake, &one, sizeof one);
    (void)ignored; /* full means that the thread is awake already */
}

static void board_request(void *opaque, struct device *dev, enum board_request what, uint32_t value)
{
    static const unsigned mails[] = {
        [BOARD_RESET] = MAIL_RESET,     [BOARD_POWER_OFF] = MAIL_POWER_OFF,
        [BOARD_SUSPEND] = MAIL_SUSPEND, [BOARD_EXIT] = MAIL_EXIT,
        [BOARD_PANIC] = MAIL_PANIC,     [BOARD_MEDIA_EJECT] = MAIL_EJECTED,
    };
    struct machine *m = opaque;
    if (what == BOARD_EXIT)
        atomic_store(&m->exit_value, value);
    if (what == BOARD_MEDIA_EJECT)
        drives_note_ejected(m->files.drives, dev, value);
    else if (what != BOARD_PANIC && m->vcpus)
        vcpus_hold(m->vcpus); /* not one more step of the guest */
    machine_post(m, mails[what]);
}

static void board_send_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct machine *m = opaque;
    interrupts_send(&m->interrupts, address, data);
}

static void board_set_routes(void *opaque, const struct msi_route *routes, unsigned count)
{
    struct machine *m = opaque;
    interrupts_set_pins(&m->interrupts, routes, count);
}

static int board_line_open(void *opaque)
{
    struct machine *m = opaque;
    return interrupts_open_line(&m->interrupts);
}

static void board_line_route(void *opaque, int line, uint64_t address, uint32_t data)
{
    struct machine *m = opaque;
    interrupts_route_line(&m->interrupts, line, address, data);
}

static void board_line_send(void *opaque, int line)
{
    struct machine *m = opaque;
    interrupts_send_line(&m->interrupts, line);
}

static void board_line_close(void *opaque, int line)
{
    struct machine *m = opaque;
    interrupts_close_line(&m->interrupts, line);
}

static int board_line_fd(void *opaque, int line)
{
    struct machine *m = opaque;
    return interrupts_line_fd(&m->interrupts, line);
}

static bool board_doorbell(void *opaque, uint64_t address, int fd, bool on)
{
    struct machine *m = opaque;
    return kvm_vm_ioeventfd(&m->vm, fd, address, on) == 0;
}

static uint64_t board_host_time(void *opaque)
{
    const struct machine *m = opaque;
    int64_t ahead = m->config->clock ? g_ascii_strtoll(m->config->clock, NULL, 10) : 0;
    return (uint64_t)MAX(g_get_real_time() / G_USEC_PER_SEC + ahead, 0);
}

static const struct board_ops board_ops = {
    .request = board_request,
    .send_msi = board_send_msi,
    .set_routes = board_set_routes,
    .host_time = board_host_time,
    .line_open = board_line_open,
    .line_route = board_line_route,
    .line_send = board_line_send,
    .line_close = board_line_close,
    .line_fd = board_line_fd,
    .doorbell = board_doorbell,
};

static void vcpu_crashed(void *opaque, const char *report)
{
    struct machine *m = opaque;
    g_mutex_lock(&m->lock);
    if (!m->report) /* the first report is the cause */
        m->report = g_strdup(report);
    g_mutex_unlock(&m->lock);
    machine_post(m, MAIL_CRASHED);
}

static const struct vcpu_events vcpu_events = { .crashed = vcpu_crashed };

/* --- making --------------------------------------------------------------------------------- */

static bool make_vm(struct machine *m, GError **error)
{
    int result = kvm_adopt(&m->kvm, m->files.kvm);
    if (result < 0)
        return hv_fail(error, HV_HOST, "/dev/kvm: this is not KVM as Linux has it (%s)",
                       g_strerror(-result));
    result = kvm_vm_create(&m->kvm, &m->vm);
    if (result == -EBUSY)
        return hv_fail(error, HV_HOST,
                       "/dev/kvm: another hypervisor (VirtualBox?) uses the processor's "
                       "virtualisation: end its machines first");
    if (result < 0)
        return hv_fail(error, HV_HOST, "/dev/kvm: cannot create a virtual machine: %s",
                       g_strerror(-result));
    result = kvm_vm_reserve(&m->vm, IDENTITY_MAP, TSS_PAGES);
    return result == 0 || hv_fail(error, HV_HOST, "/dev/kvm: %s", g_strerror(-result));
}

/* After all memory slots: the other order costs a grace period of the kernel for each slot. */
static bool make_vcpus(struct machine *m, GError **error)
{
    int result = kvm_vm_split_irqchip(&m->vm, IOAPIC_PINS);
    if (result < 0)
        return hv_fail(error, HV_HOST,
                       "/dev/kvm: this kernel cannot split the interrupt controllers (%s): Linux "
                       "4.4 or later is needed",
                       g_strerror(-result));
    const struct vcpu_host host = {
        .kvm = &m->kvm,
        .vm = &m->vm,
        .bus = m->board.bus,
        .guest = m->board.guest,
        .pic = m->pc.pic,
        .ioapic = m->pc.ioapic,
        .events = &vcpu_events,
        .opaque = m,
    };
    m->interrupts.ready = true;
    m->vcpus = vcpus_new(&host, (unsigned)m->config->cpus, m->config->cpu, error);
    if (!m->vcpus)
        return false;
    struct irq_input intr = vcpus_intr(m->vcpus);
    device_plug(m->pc.pic, "intr", &intr);
    return true;
}

/* Where a kernel is started without firmware: put it and its surroundings in place. */
static bool make_kernel(struct machine *m, struct entry *entry, bool again, GError **error)
{
    return !m->files.kernel ||
           direct_load(&m->pc, m->files.kernel, !m->config->headless, again, entry, error);
}

static gboolean read_mail(int fd, GIOCondition condition, void *data);

struct machine *machine_new(const struct config *config, const struct machine_files *files,
                            GError **error)
{
    struct machine *m = g_new0(struct machine, 1);
    struct entry entry;
    m->config = config;
    m->files = *files;
    m->state = STATE_PAUSED;
    m->why = g_strdup("not started");
    m->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_mutex_init(&m->lock);
    m->board = (struct board){
        .bus = bus_new(),
        .clock = clock_new(false),
        .pci = pci_bus_new(),
        .ops = &board_ops,
        .threads = true,
        .opaque = m,
        .guest = guest_new(config->memory, error),
    };
    if (!m->board.guest || !make_vm(m, error))
        return NULL; /* the process ends with it */
    interrupts_init(&m->interrupts, &m->vm);
    guest_set_provider(m->board.guest, &slots, m);
    if (!pc_show_memory(m->board.guest, files->firmware, error) ||
        !pc_build(&m->pc, &m->board, config, files, error) ||
        !make_kernel(m, &entry, false, error) || !make_vcpus(m, error))
        return NULL;
    if (files->kernel && !vcpus_enter(m->vcpus, &entry, error))
        return NULL;
    machine_watch_disks(m);
    g_unix_fd_add(m->wake, G_IO_IN, read_mail, m);
    return m;
}

void machine_listen(struct machine *m, const struct machine_listener *listener)
{
    g_assert(m->listener_count < MACHINE_LISTENERS);
    m->listeners[m->listener_count++] = *listener;
}

/* --- states --------------------------------------------------------------------------------- */

void machine_set_state(struct machine *m, enum display_state state, const char *why)
{
    m->state = state;
    g_free(m->why);
    m->why = g_strdup(why);
    for (unsigned i = 0; i < m->listener_count; i++)
        if (m->listeners[i].state)
            m->listeners[i].state(m->listeners[i].opaque, state, why);
}

void machine_tell(struct machine *m, const char *name, const char *text)
{
    for (unsigned i = 0; i < m->listener_count; i++)
        if (m->listeners[i].event)
            m->listeners[i].event(m->listeners[i].opaque, name, text);
}

void machine_stop(struct machine *m)
{
    vcpus_hold(m->vcpus); /* first the loops: a vCPU may wait for one */
    if (m->files.serial)
        host_stream_hold(m->files.serial, true);
    for (guint i = 0; i < m->pc.devices->len; i++)
        device_pause(g_ptr_array_index(m->pc.devices, i));
    vcpus_pause(m->vcpus);
    clock_stop(m->board.clock);
}

static void run_all(struct machine *m)
{
    for (guint i = 0; i < m->pc.devices->len; i++)
        device_resume(g_ptr_array_index(m->pc.devices, i));
    if (m->files.serial)
        host_stream_hold(m->files.serial, false);
    clock_start(m->board.clock);
    vcpus_start(m->vcpus);
}

static void go(struct machine *m)
{
    run_all(m);
    machine_set_state(m, STATE_RUNNING, "");
}

bool machine_look(struct machine *m, struct vcpu_look *looks, GError **error)
{
    bool ok = true;
    if (m->state == STATE_RUNNING)
        machine_stop(m);
    for (unsigned id = 0; ok && id < (unsigned)m->config->cpus; id++)
        ok = vcpus_look(m->vcpus, id, &looks[id], error);
    /* What the guest asked for meanwhile comes before its next step. */
    if (m->state == STATE_RUNNING && !(atomic_load(&m->mail) & MAIL_WISHES))
        run_all(m);
    return ok;
}

void machine_start(struct machine *m)
{
    go(m);
}

void machine_pause(struct machine *m)
{
    if (m->state != STATE_RUNNING)
        return;
    machine_stop(m);
    machine_set_state(m, STATE_PAUSED, "paused");
}

void machine_resume(struct machine *m)
{
    if (m->state != STATE_PAUSED && m->state != STATE_DISK_FULL)
        return;
    if (m->state == STATE_DISK_FULL)
        drives_retry(m->files.drives);
    if (!(atomic_load(&m->mail) & MAIL_WISHES)) {
        go(m);
        return;
    }
    machine_set_state(m, STATE_RUNNING,
                      ""); /* not one step of the guest before what it asked for */
    machine_post(m, 0);
}

/* Why is the report's first line. */
static void crash(struct machine *m, const char *report)
{
    g_autofree char *why = g_strndup(report, strcspn(report, "\n"));
    machine_stop(m);
    log_error(NULL, "%s", report);
    machine_tell(m, "crash", report);
    machine_set_state(m, STATE_CRASHED, why);
}

static void reset(struct machine *m, const char *by)
{
    if (m->state == STATE_OFF)
        return;
    machine_stop(m);
    drives_drain(m->files.drives);
    bus_hold(m->board.bus);
    for (guint i = 0; i < m->pc.devices->len; i++)
        device_reset(g_ptr_array_index(m->pc.devices, i));
    bus_release(m->board.bus);
    vcpus_reset(m->vcpus);
    struct entry entry;
    g_autoptr(GError) error = NULL;
    bool ok = make_kernel(m, &entry, true, &error) &&
              (!m->files.kernel || vcpus_enter(m->vcpus, &entry, &error));
    /* What the devices asked for before they were reset is void, but for a medium's way out. */
    atomic_fetch_and(&m->mail, MAIL_EJECTED);
    g_mutex_lock(&m->lock);
    m->full = NULL;
    g_clear_pointer(&m->report, g_free);
    g_mutex_unlock(&m->lock);
    machine_tell(m, "reset", by);
    if (ok) {
        go(m);
    } else {
        g_prefix_error(&error, "its kernel cannot be started again: ");
        crash(m, error->message);
    }
}

void machine_reset(struct machine *m)
{
    reset(m, "");
}

void machine_press_power(struct machine *m)
{
    struct device *lpc = m->pc.lpc;
    g_mutex_lock(&lpc->lock);
    lpc->class->power_button(lpc);
    g_mutex_unlock(&lpc->lock);
    machine_tell(m, "shutdown", "asked");
}

void machine_power_off(struct machine *m, int status)
{
    if (m->state == STATE_OFF)
        return;
    machine_stop(m);
    drives_end(m->files.drives);
    if (m->files.serial)
        host_stream_flush(m->files.serial);
    if (m->files.serial2)
        host_stream_flush(m->files.serial2);
    if (m->files.firmware_log)
        host_stream_flush(m->files.firmware_log);
    m->exit_status = status;
    machine_set_state(m, STATE_OFF, "");
}

void machine_pull_plug(struct machine *m)
{
    if (m->state != STATE_OFF)
        drives_cut(m->files.drives);
    machine_power_off(m, m->state == STATE_CRASHED ? HV_CRASHED : HV_OK);
}

struct drives *machine_drives(struct machine *m)
{
    return m->files.drives;
}

bool machine_set_cable(struct machine *m, bool in, GError **error)
{
    bool found = false;
    for (guint i = 0; i < m->pc.devices->len; i++) {
        struct device *dev = g_ptr_array_index(m->pc.devices, i);
        if (!dev->class->set_cable)
            continue;
        device_lock(dev);
        dev->class->set_cable(dev, in);
        device_unlock(dev);
        found = true;
    }
    if (found)
        machine_tell(m, "net", in ? "on" : "off");
    return found || hv_fail(error, HV_WRONG_STATE, "it has no network card");
}

static struct device *find_card(struct machine *m)
{
    for (guint i = 0; m->pc.net && i < m->pc.devices->len; i++) {
        struct device *dev = g_ptr_array_index(m->pc.devices, i);
        if (dev->class->set_cable)
            return dev;
    }
    return NULL;
}

bool machine_net_faults(struct machine *m, struct net_faults *faults)
{
    struct device *dev = find_card(m);
    if (!dev)
        return false;
    device_lock(dev);
    *faults = net_get_faults(m->pc.net);
    device_unlock(dev);
    return true;
}

bool machine_set_net_faults(struct machine *m, const struct net_faults *faults, GError **error)
{
    struct device *dev = find_card(m);
    if (!dev)
        return hv_fail(error, HV_WRONG_STATE, "it has no network card");
    if (net_vhost(m->pc.net, 0))
        return hv_fail(error, HV_WRONG_STATE,
                       "the host's kernel serves the network card: start the machine with "
                       "--net tap=NAME,vhost=off");
    device_lock(dev);
    net_set_faults(m->pc.net, m->board.clock, &dev->lock, faults);
    device_unlock(dev);
    return true;
}

/* --- mail ----------------------------------------------------------------------------------- */

static gboolean read_mail(int fd, GIOCondition condition, void *data)
{
    struct machine *m = data;
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof count);
    (void)ignored, (void)condition;
    unsigned mail = atomic_exchange(&m->mail, 0);
    if (m->state == STATE_OFF)
        return G_SOURCE_CONTINUE;
    if (m->state == STATE_PAUSED || m->state == STATE_DISK_FULL) {
        /* Asked for in the last step before the pause: when it goes on. */
        atomic_fetch_or(&m->mail, mail & MAIL_WISHES);
        mail &= ~(unsigned)MAIL_WISHES;
    }
    if (m->state == STATE_CRASHED) /* the last steps of other vCPUs: nothing goes on after it */
        mail &= MAIL_EXIT | MAIL_POWER_OFF | MAIL_EJECTED | MAIL_DISK_ERROR;
    if (mail & MAIL_DISK_ERROR)
        machine_disk_failed(m);
    if (mail & (MAIL_EXIT | MAIL_POWER_OFF))
        machine_tell(m, "shutdown", "by the guest");
    if (mail & MAIL_EXIT)
        machine_power_off(m, (int)atomic_load(&m->exit_value));
    else if (mail & MAIL_POWER_OFF)
        machine_power_off(m, HV_OK);
    else if (mail & MAIL_CRASHED)
        crash(m, m->report);
    else if (mail & MAIL_RESET)
        reset(m, "by the guest");
    else if (mail & MAIL_SUSPEND)
        go(m); /* S3 is not offered in the DSDT: it wakes at once */
    if (mail & MAIL_PANIC && m->state == STATE_RUNNING) {
        machine_tell(m, "panic", "");
        crash(m, "the guest crashed: it says so itself (pvpanic)");
    }
    if (mail & MAIL_EJECTED)
        machine_guest_ejected(m);
    if (mail & MAIL_DISK_FULL)
        machine_disk_full(m);
    return G_SOURCE_CONTINUE;
}

/* --- questions ------------------------------------------------------------------------------ */

enum display_state machine_state(const struct machine *m)
{
    return m->state;
}

const char *machine_why(const struct machine *m)
{
    return m->why;
}

int machine_exit_status(const struct machine *m)
{
    return m->exit_status;
}

void machine_close_disks(struct machine *m)
{
    drives_close(m->files.drives);
}

const struct config *machine_config(const struct machine *m)
{
    return m->config;
}

struct device *machine_display(struct machine *m)
{
    return m->pc.vga;
}

const GPtrArray *machine_devices(struct machine *m)
{
    return m->pc.devices;
}

struct board *machine_board(struct machine *m)
{
    return &m->board;
}

void machine_set_screen(struct machine *m, struct screen *screen)
{
    device_plug(m->pc.vga, "screen", screen);
}
