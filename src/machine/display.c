/* The display server; see display.h and base/display-protocol.h. */
#include "machine/display.h"

#include "base/error.h"
#include "base/fds.h"
#include "base/log.h"
#include "machine/inputs.h"
#include "machine/typist.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MAX_VIEWERS = 8,
    FRAME_BYTES = SCREEN_MAX_WIDTH * SCREEN_MAX_HEIGHT * 4,
    FAST_MS = 16,  /* between two looks at a moving picture */
    SLOW_MS = 510, /* at a still one: two a second at most, however they are counted */
    MESSAGES_AT_ONCE = 64,
};

struct viewer {
    int fd;                  /* -1: free */
    struct rectangle damage; /* not sent yet */
    uint32_t width, height;  /* as it knows them */
    bool state_due;
};

struct display {
    struct screen screen; /* the device's plug */
    struct machine *machine;
    struct typist *typist;
    int listener, wake, frame_fd;
    GThread *thread;
    atomic_bool quit, dirty, state_changed;
    atomic_uint viewers;
    struct onlooker *onlooker;
    atomic_bool looking_on, onlooker_new;

    GMutex lock; /* protects state and why; a leaf */
    enum display_state state;
    char why[DISPLAY_TEXT_MAX];
    void (*gone)(void *opaque);
    void *gone_opaque;

    /* the thread's own */
    struct viewer viewer[MAX_VIEWERS];
    struct picture picture;
    unsigned interval_ms;
    gint64 next_look;  /* monotonic us */
    gint64 deaf_until; /* monotonic us; no descriptor was left for who connects */
    uint32_t lamps, activity;
    struct log_limit paste_log;
    bool absolute; /* the guest takes positions of the pointer */
};

static void wake(struct display *d)
{
    uint64_t one = 1;
    ssize_t ignored = write(d->wake, &one, sizeof one);
    (void)ignored;
}

/* --- from other threads --------------------------------------------------------------------- */

static bool is_looked_at(struct display *d)
{
    return atomic_load_explicit(&d->viewers, memory_order_relaxed) ||
           atomic_load_explicit(&d->looking_on, memory_order_relaxed);
}

/* A device's word that its picture may have changed: two loads while nobody looks. */
static void screen_dirty(struct screen *screen)
{
    struct display *d = (struct display *)screen;
    if (is_looked_at(d) && !atomic_exchange(&d->dirty, true))
        wake(d);
}

static void state_told(void *opaque, enum display_state state, const char *why)
{
    struct display *d = opaque;
    g_mutex_lock(&d->lock);
    d->state = state;
    g_strlcpy(d->why, why, sizeof d->why);
    g_mutex_unlock(&d->lock);
    atomic_store(&d->state_changed, true);
    wake(d);
}

/* --- to the viewers ------------------------------------------------------------------------- */

/* On the machine's thread. (g_main_context_invoke could run it here, between two of that thread's
 * turns.) */
static gboolean tell_gone(void *data)
{
    struct display *d = data;
    d->gone(d->gone_opaque);
    return G_SOURCE_REMOVE;
}

static void drop(struct display *d, struct viewer *v)
{
    close(v->fd);
    v->fd = -1;
    if (atomic_fetch_sub(&d->viewers, 1) == 1 && d->gone)
        g_idle_add_full(G_PRIORITY_DEFAULT, tell_gone, d, NULL);
}

/* False when the viewer cannot take it now; a dead one is dropped. */
static bool tell(struct display *d, struct viewer *v, const struct display_message *message)
{
    ssize_t n = send(v->fd, message, sizeof *message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        drop(d, v);
    return n == (ssize_t)sizeof *message;
}

static void tell_state(struct display *d, struct viewer *v)
{
    struct display_message message = { .kind = DISPLAY_STATE, .b = d->lamps, .c = d->activity };
    g_mutex_lock(&d->lock);
    message.a = d->state;
    g_strlcpy(message.text, d->why, sizeof message.text);
    g_mutex_unlock(&d->lock);
    message.d = (d->typist && typist_busy(d->typist) ? DISPLAY_TYPING : 0) |
                (d->absolute ? DISPLAY_ABSOLUTE : 0);
    v->state_due = !tell(d, v, &message);
}

static struct rectangle joined(struct rectangle a, struct rectangle b)
{
    if (!a.width)
        return b;
    if (!b.width)
        return a;
    uint32_t x = MIN(a.x, b.x), y = MIN(a.y, b.y);
    return (struct rectangle){ x, y, MAX(a.x + a.width, b.x + b.width) - x,
                               MAX(a.y + a.height, b.y + b.height) - y };
}

/* Sends a viewer what it lacks, as far as its socket takes it. */
static void serve(struct display *d, struct viewer *v)
{
    const struct picture *p = &d->picture;
    if (p->width && (v->width != p->width || v->height != p->height)) {
        const struct display_message mode = { .kind = DISPLAY_MODE, .a = p->width, .b = p->height };
        if (!tell(d, v, &mode))
            return;
        v->width = p->width;
        v->height = p->height;
        v->damage = (struct rectangle){ 0, 0, p->width, p->height };
    }
    if (v->damage.width) {
        const struct display_message damage = { .kind = DISPLAY_DAMAGE,
                                                .a = v->damage.x,
                                                .b = v->damage.y,
                                                .c = v->damage.width,
                                                .d = v->damage.height };
        if (!tell(d, v, &damage))
            return;
        v->damage.width = 0;
    }
    if (v->state_due)
        tell_state(d, v);
}

/* Looks at all but the picture: lamps, and what the pointer is. Returns whether anything changed.
 */
static bool look_aside(struct display *d)
{
    const GPtrArray *devices = machine_devices(d->machine);
    struct device *keyboard = inputs_choose(devices, INPUT_KEYS);
    bool absolute = inputs_choose(devices, INPUT_POINTER_AT);
    uint32_t lamps = 0, activity = machine_disk_activity(d->machine);
    if (keyboard && keyboard->class->input->lamps) {
        device_lock(keyboard);
        lamps = keyboard->class->input->lamps(keyboard);
        device_unlock(keyboard);
    }
    bool news = lamps != d->lamps || activity != d->activity || absolute != d->absolute;
    d->lamps = lamps;
    d->activity = activity;
    d->absolute = absolute;
    return news;
}

/* Looks at the device; viewers learn what changed. Returns whether anything did. */
static bool look(struct display *d)
{
    struct device *dev = machine_display(d->machine);
    struct rectangle changed = { 0, 0, 0, 0 };
    bool first = atomic_exchange(&d->onlooker_new, false);
    atomic_store(&d->dirty, false);
    device_lock(dev);
    bool any = dev->class->screen->render(dev, &d->picture, &changed, false);
    device_unlock(dev);

    bool news = look_aside(d);

    if (atomic_load(&d->looking_on) && (first || any)) {
        const struct rectangle whole = { 0, 0, d->picture.width, d->picture.height };
        d->onlooker->seen(d->onlooker, &d->picture, first ? whole : changed, first);
    }
    for (unsigned i = 0; i < MAX_VIEWERS; i++) {
        struct viewer *v = &d->viewer[i];
        if (any)
            v->damage = joined(v->damage, changed);
        v->state_due |= news;
        if (v->fd >= 0)
            serve(d, v);
    }
    return any;
}

static void greet(struct display *d)
{
    int fd = fds_accept(d->listener);
    struct viewer *v = NULL;
    if (fd == FDS_NONE_LEFT)
        d->deaf_until = g_get_monotonic_time() + FDS_REST_MS * 1000;
    for (unsigned i = 0; fd >= 0 && i < MAX_VIEWERS && !v; i++)
        if (d->viewer[i].fd < 0)
            v = &d->viewer[i];
    struct display_message hello = { .kind = DISPLAY_HELLO,
                                     .a = FRAME_BYTES,
                                     .c = DISPLAY_VERSION };
    g_strlcpy(hello.text, machine_config(d->machine)->name, DISPLAY_NAME_MAX);
    if (!v || !fds_send(fd, &hello, sizeof hello, &d->frame_fd, 1, NULL)) {
        if (fd >= 0)
            close(fd);
        return;
    }
    *v = (struct viewer){ .fd = fd, .state_due = true };
    if (d->picture.width)
        v->damage = (struct rectangle){ 0, 0, d->picture.width, d->picture.height };
    atomic_fetch_add(&d->viewers, 1);
    d->interval_ms = FAST_MS;
    d->next_look = 0;
}

/* --- from the viewers ----------------------------------------------------------------------- */

struct action {
    struct display *display;
    enum display_action what;
};

static gboolean act(void *data)
{
    g_autofree struct action *action = data;
    struct machine *machine = action->display->machine;
    switch (action->what) {
    case ACTION_SHUT_DOWN:
        machine_press_power(machine);
        break;
    case ACTION_POWER_OFF:
        machine_pull_plug(machine);
        break;
    case ACTION_RESET:
        machine_reset(machine);
        break;
    case ACTION_PAUSE:
        machine_pause(machine);
        break;
    case ACTION_RESUME:
        machine_resume(machine);
        break;
    case ACTION_EJECT:
        machine_eject(machine, MEDIUM_CD, NULL);
        break;
    }
    return G_SOURCE_REMOVE;
}

static void obey(struct display *d, uint32_t what)
{
    struct action *action = g_new(struct action, 1);
    *action = (struct action){ d, (enum display_action)what };
    g_idle_add_full(G_PRIORITY_DEFAULT, act, action, NULL);
}

static void point(struct display *d, const struct display_message *m)
{
    bool at = m->kind == DISPLAY_POINTER_AT;
    struct device *dev =
        inputs_choose(machine_devices(d->machine), at ? INPUT_POINTER_AT : INPUT_POINTER);
    if (!dev)
        return; /* the guest's driver has just gone */
    device_lock(dev);
    if (at)
        dev->class->input->pointer_at(dev, m->a, m->b, (int32_t)m->c, m->d);
    else
        dev->class->input->pointer(dev, (int32_t)m->a, (int32_t)m->b, (int32_t)m->c, m->d);
    device_unlock(dev);
}

static void paste(struct display *d, const struct display_message *m)
{
    size_t length = MIN(m->a, DISPLAY_TEXT_MAX);
    struct typist_answer answer = typist_text(d->typist, m->text, length);
    if ((answer.left_out || answer.taken < length) && log_limit_pass(&d->paste_log, "paste"))
        log_warn("paste", "%s are not typed: %s",
                 answer.left_out ? "characters" : "the rest of the text",
                 answer.left_out ? "the guest's keyboard layout (--layout) lacks them"
                                 : "too much waits to be typed");
}

static void take(struct display *d, struct display_message *m)
{
    switch (m->kind) {
    case DISPLAY_KEY:
        if (m->a > 0 && m->a < 256)
            typist_key(d->typist, (uint8_t)m->a, m->b != 0);
        break;
    case DISPLAY_POINTER:
    case DISPLAY_POINTER_AT:
        point(d, m);
        break;
    case DISPLAY_PASTE:
        paste(d, m);
        break;
    case DISPLAY_ACTION:
        obey(d, m->a);
        break;
    }
}

static void listen_to(struct display *d, struct viewer *v)
{
    struct display_message message;
    for (unsigned i = 0; i < MESSAGES_AT_ONCE; i++) {
        ssize_t n = recv(v->fd, &message, sizeof message, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n != (ssize_t)sizeof message) { /* gone, or not speaking this protocol */
            drop(d, v);
            return;
        }
        take(d, &message);
    }
}

/* --- the thread ----------------------------------------------------------------------------- */

/* Milliseconds until the next look; -1 for ever. */
static int patience(struct display *d)
{
    if (!is_looked_at(d))
        return d->deaf_until ? FDS_REST_MS : -1;
    gint64 left = (d->next_look - g_get_monotonic_time() + 999) / 1000;
    return (int)CLAMP(left, 0, SLOW_MS);
}

static void look_when_due(struct display *d)
{
    if (!is_looked_at(d))
        return;
    gint64 now = g_get_monotonic_time();
    if (atomic_load(&d->onlooker_new)) {
        d->interval_ms = FAST_MS;
        d->next_look = now;
    } else if (atomic_load(&d->dirty) && d->interval_ms > FAST_MS) {
        d->interval_ms = FAST_MS;
        d->next_look = MIN(d->next_look, now);
    }
    if (now < d->next_look)
        return;
    bool moved = look(d);
    d->interval_ms = moved ? FAST_MS : MIN(d->interval_ms * 2, SLOW_MS);
    d->next_look = now + (gint64)d->interval_ms * 1000;
}

static void *serve_viewers(void *data)
{
    struct display *d = data;
    while (!atomic_load(&d->quit)) {
        if (d->deaf_until <= g_get_monotonic_time())
            d->deaf_until = 0;
        struct pollfd fds[MAX_VIEWERS + 2] = { { d->deaf_until ? -1 : d->listener, POLLIN, 0 },
                                               { d->wake, POLLIN, 0 } };
        for (unsigned i = 0; i < MAX_VIEWERS; i++) {
            const struct viewer *v = &d->viewer[i];
            bool waiting = v->damage.width || v->state_due;
            fds[i + 2] = (struct pollfd){ v->fd, (short)(POLLIN | (waiting ? POLLOUT : 0)), 0 };
        }
        if (poll(fds, G_N_ELEMENTS(fds), patience(d)) < 0 && errno != EINTR)
            break;
        if (fds[1].revents) {
            uint64_t count;
            ssize_t ignored = read(d->wake, &count, sizeof count);
            (void)ignored;
        }
        for (unsigned i = 0; i < MAX_VIEWERS; i++)
            if (d->viewer[i].fd >= 0 && fds[i + 2].revents & (POLLIN | POLLHUP | POLLERR)) {
                listen_to(d, &d->viewer[i]);
                d->interval_ms = FAST_MS; /* what was typed will soon be seen */
                d->next_look = MIN(d->next_look, g_get_monotonic_time() + FAST_MS * 1000);
            }
        if (fds[0].revents)
            greet(d);
        bool told = atomic_exchange(&d->state_changed, false);
        for (unsigned i = 0; i < MAX_VIEWERS; i++) {
            d->viewer[i].state_due |= told;
            if (d->viewer[i].fd >= 0)
                serve(d, &d->viewer[i]);
        }
        look_when_due(d);
    }
    return NULL;
}

/* The frame: of fixed size, so that neither side can pull it from under the other. */
static bool make_frame(struct display *d, GError **error)
{
    d->frame_fd = memfd_create("hv-frame", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (d->frame_fd < 0 || ftruncate(d->frame_fd, FRAME_BYTES) < 0)
        return hv_fail(error, HV_HOST, "no memory for the screen: %s", g_strerror(errno));
    d->picture.pixels =
        mmap(NULL, FRAME_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, d->frame_fd, 0);
    if (d->picture.pixels == MAP_FAILED)
        return hv_fail(error, HV_HOST, "no memory for the screen: %s", g_strerror(errno));
    return fcntl(d->frame_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) ==
               0 ||
           hv_fail(error, HV_HOST, "the screen cannot be sealed: %s", g_strerror(errno));
}

struct display *display_new(struct machine *machine, int listener, GError **error)
{
    struct display *d = g_new0(struct display, 1);
    d->screen.changed = screen_dirty;
    d->machine = machine;
    d->listener = listener;
    d->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->interval_ms = FAST_MS;
    g_mutex_init(&d->lock);
    for (unsigned i = 0; i < MAX_VIEWERS; i++)
        d->viewer[i].fd = -1;
    if (!make_frame(d, error))
        return NULL;
    machine_set_screen(machine, &d->screen);
    machine_listen(machine, &(struct machine_listener){ .state = state_told, .opaque = d });
    return d;
}

void display_start(struct display *d)
{
    d->thread = g_thread_new("display", serve_viewers, d);
}

void display_set_typist(struct display *display, struct typist *typist)
{
    display->typist = typist;
}

void display_set_onlooker(struct display *display, struct onlooker *onlooker)
{
    display->onlooker = onlooker;
}

void display_look_on(struct display *d, bool on)
{
    atomic_store(&d->looking_on, on);
    atomic_store(&d->onlooker_new, on);
    if (on)
        wake(d);
}

unsigned display_viewers(struct display *display)
{
    return atomic_load(&display->viewers);
}

void display_on_last_gone(struct display *d, void (*gone)(void *opaque), void *opaque)
{
    d->gone = gone;
    d->gone_opaque = opaque;
}

void display_stop(struct display *d)
{
    atomic_store(&d->quit, true);
    wake(d);
    g_thread_join(d->thread);
    for (unsigned i = 0; i < MAX_VIEWERS; i++)
        if (d->viewer[i].fd >= 0) {
            look(d); /* the last picture */
            break;
        }
    for (unsigned i = 0; i < MAX_VIEWERS; i++)
        if (d->viewer[i].fd >= 0)
            tell_state(d, &d->viewer[i]);
}
