/* The typist; see typist.h. HID usages: HUT 1.12 section 10. */
#include "machine/typist.h"

#include "base/error.h"

#include <string.h>

enum {
    /* Strokes that may wait: the longest text of a window or a request, 64 KiB, all with Shift; and
     * the releases of keys that are down, so that none stays down. */
    TEXT_ROOM = 4 * 65536,
    ROOM = TEXT_ROOM + 512,
    SHIFT = 0xe1,
    /* Flags of a stroke: wait until the guest has taken what came before; and until the key before
     * was down as long as a finger holds it, for guests that look at the keyboard now and then. */
    PACED = 1,
    HELD = 2,
    HOLD_NS = 100 * 1000 * 1000,
    PACE_NS = 2 * 1000 * 1000, /* between keys when nobody knows whether the guest took them */
    /* The keyboard queue of a PC BIOS (IBM PC BIOS data area): head and tail, offsets into segment
     * 0x40 of a ring of 15 keys. What does not fit is lost. */
    BIOS_QUEUE = 0x41a,
    BIOS_RING = 0x1e,
    BIOS_RING_END = 0x3e,
    BIOS_RING_BYTES = BIOS_RING_END - BIOS_RING,
    BIOS_MANY = 8 * 2, /* bytes: half of it is used */
    BIOS_LOOK_NS = 5 * 1000 * 1000,
};
/* How long keys wait for a queue that does not move: shortly while it has room, as an operating
 * system leaves it with keys that nobody will ever want; long when they would soon be lost. */
#define BIOS_PATIENCE_NS      (NS_PER_SECOND / 2)
#define BIOS_MANY_PATIENCE_NS (60 * NS_PER_SECOND)

struct stroke {
    uint8_t usage, flags;
    bool down;
};

struct typist {
    struct input_source source;
    struct board *board;
    struct device *(*keyboard)(void *opaque);
    void *opaque;

    GMutex lock; /* protects the queue and the two flags; a leaf */
    struct stroke queue[ROOM];
    unsigned begin, used;
    bool pumping, again; /* again: a keyboard changed meanwhile */

    GMutex turn;         /* protects the rest; taken before a keyboard's lock */
    struct timer timer;  /* for what waits for time to pass, or was told by a keyboard */
    uint64_t given;      /* when the last key went to the keyboard, guest ns */
    uint64_t pressed;    /* when the last one went down */
    uint64_t bios_since; /* when the head of the BIOS's queue last moved */
    uint16_t bios_head;
    struct device *held[256]; /* by usage: the keyboard on which the key is down */
};

static const struct {
    const char *name;
    uint8_t usage;
} key_names[] = {
    { "enter", 0x28 },      { "return", 0x28 },   { "esc", 0x29 },     { "escape", 0x29 },
    { "backspace", 0x2a },  { "tab", 0x2b },      { "space", 0x2c },   { "minus", 0x2d },
    { "equal", 0x2e },      { "capslock", 0x39 }, { "f1", 0x3a },      { "f2", 0x3b },
    { "f3", 0x3c },         { "f4", 0x3d },       { "f5", 0x3e },      { "f6", 0x3f },
    { "f7", 0x40 },         { "f8", 0x41 },       { "f9", 0x42 },      { "f10", 0x43 },
    { "f11", 0x44 },        { "f12", 0x45 },      { "print", 0x46 },   { "sysrq", 0x46 },
    { "scrolllock", 0x47 }, { "pause", 0x48 },    { "insert", 0x49 },  { "home", 0x4a },
    { "pageup", 0x4b },     { "delete", 0x4c },   { "del", 0x4c },     { "end", 0x4d },
    { "pagedown", 0x4e },   { "right", 0x4f },    { "left", 0x50 },    { "down", 0x51 },
    { "up", 0x52 },         { "numlock", 0x53 },  { "kpenter", 0x58 }, { "menu", 0x65 },
    { "ctrl", 0xe0 },       { "shift", 0xe1 },    { "alt", 0xe2 },     { "super", 0xe3 },
    { "win", 0xe3 },        { "meta", 0xe3 },     { "rctrl", 0xe4 },   { "rshift", 0xe5 },
    { "ralt", 0xe6 },       { "altgr", 0xe6 },    { "rsuper", 0xe7 },  { "plus", 0x57 },
};

/* The keys of a US keyboard from usage 0x1e on: without shift, and with it. */
static const char us_plain[] = "1234567890\n\033\b\t -=[]\\\\;'`,./";
static const char us_shift[] = "!@#$%^&*()\n\033\b\t _+{}||:\"~<>?";

static bool find_character(char c, uint8_t *usage, bool *shift)
{
    *shift = g_ascii_isupper(c);
    if (g_ascii_isalpha(c)) {
        *usage = (uint8_t)(0x04 + g_ascii_tolower(c) - 'a');
        return true;
    }
    if (c == '\r')
        c = '\n';
    const char *at = c ? strchr(us_plain, c) : NULL;
    if (!at && c && (at = strchr(us_shift, c))) {
        *shift = true;
        *usage = (uint8_t)(0x1e + (at - us_shift));
        return true;
    }
    if (at)
        *usage = (uint8_t)(0x1e + (at - us_plain));
    return at;
}

uint8_t typist_key_named(const char *name)
{
    uint8_t usage;
    bool shift;
    for (size_t i = 0; i < G_N_ELEMENTS(key_names); i++)
        if (!g_ascii_strcasecmp(key_names[i].name, name))
            return key_names[i].usage;
    bool one = name[0] && !name[1];
    return one && find_character(g_ascii_tolower(name[0]), &usage, &shift) && !shift ? usage : 0;
}

const char *typist_key_near(const char *name)
{
    const char *names[G_N_ELEMENTS(key_names) + 1] = { NULL };
    for (size_t i = 0; i < G_N_ELEMENTS(key_names); i++)
        names[i] = key_names[i].name;
    return hv_nearest(name, names);
}

/* --- the queue ------------------------------------------------------------------------------ */

/* All of the strokes, or none when they do not fit: a key that goes down comes up again. */
static bool push(struct typist *t, const struct stroke *strokes, unsigned count, unsigned room)
{
    g_mutex_lock(&t->lock);
    bool fits = t->used + count <= room;
    for (unsigned i = 0; fits && i < count; i++)
        t->queue[(t->begin + t->used++) % ROOM] = strokes[i];
    g_mutex_unlock(&t->lock);
    return fits;
}

static bool peek(struct typist *t, struct stroke *stroke)
{
    g_mutex_lock(&t->lock);
    bool any = t->used > 0;
    if (any)
        *stroke = t->queue[t->begin];
    g_mutex_unlock(&t->lock);
    return any;
}

static void pop(struct typist *t)
{
    g_mutex_lock(&t->lock);
    t->begin = --t->used ? (t->begin + 1) % ROOM : 0; /* touches no more pages than it needs */
    g_mutex_unlock(&t->lock);
}

/* Do keys wait in the BIOS's queue? Its interrupt handler empties the keyboard at once, however
 * slowly a boot loader then asks for keys. Only while the queue moves: an operating system leaves
 * it as it is, with keys that nobody will ever want. */
static bool bios_has_keys(struct typist *t)
{
    struct guest *guest = t->board->guest;
    struct {
        le16 head, tail;
    } queue;
    if (!guest || !guest_read(guest, GPA(BIOS_QUEUE), &queue, sizeof queue))
        return false;
    uint16_t head = le16_get(queue.head), tail = le16_get(queue.tail);
    if (head == tail || MIN(head, tail) < BIOS_RING || MAX(head, tail) >= BIOS_RING_END)
        return false;
    uint64_t now = clock_now(t->board->clock);
    if (head != t->bios_head)
        t->bios_since = now;
    t->bios_head = head;
    unsigned used = (unsigned)(tail - head + BIOS_RING_BYTES) % BIOS_RING_BYTES;
    return now - t->bios_since < (used < BIOS_MANY ? BIOS_PATIENCE_NS : BIOS_MANY_PATIENCE_NS);
}

/* Is it time for the stroke? Else the timer or the keyboard will tell. The keyboard's lock is held.
 */
static bool is_due(struct typist *t, struct device *keyboard, const struct stroke *stroke)
{
    const struct input_class *input = keyboard->class->input;
    uint64_t now = clock_now(t->board->clock), later = 0;
    if (stroke->flags & PACED && input->idle && !input->idle(keyboard))
        return false;
    if (stroke->flags & PACED && !input->idle)
        later = t->given + PACE_NS;
    /* A guest with a driver for another keyboard has left the BIOS. */
    if (stroke->flags & PACED && stroke->down && !input->active && bios_has_keys(t))
        later = now + BIOS_LOOK_NS;
    if (stroke->flags & HELD)
        later = MAX(later, t->pressed + HOLD_NS);
    if (later > now)
        timer_set(&t->timer, later);
    return later <= now;
}

/* False when the stroke has to wait. */
static bool give(struct typist *t, struct device *keyboard, const struct stroke *stroke)
{
    device_lock(keyboard);
    bool given = is_due(t, keyboard, stroke) &&
                 keyboard->class->input->key(keyboard, stroke->usage, stroke->down);
    device_unlock(keyboard);
    if (!given)
        return false;
    t->held[stroke->usage] = stroke->down ? keyboard : NULL;
    t->given = clock_now(t->board->clock);
    if (stroke->down)
        t->pressed = t->given;
    return true;
}

static bool another_turn(struct typist *t)
{
    g_mutex_lock(&t->lock);
    bool again = t->pumping = t->again;
    t->again = false;
    g_mutex_unlock(&t->lock);
    return again;
}

/* Gives the keyboard what it takes now. The turn is ours. */
static void pump_locked(struct typist *t)
{
    struct stroke stroke;
    g_mutex_lock(&t->lock);
    t->pumping = true;
    g_mutex_unlock(&t->lock);
    do {
        struct device *keyboard = t->keyboard(t->opaque);
        while (peek(t, &stroke)) {
            struct device *held = stroke.down ? NULL : t->held[stroke.usage];
            if (!keyboard || !give(t, held ? held : keyboard, &stroke))
                break;
            pop(t);
        }
    } while (another_turn(t));
}

static void pump(struct typist *t)
{
    g_mutex_lock(&t->turn);
    pump_locked(t);
    g_mutex_unlock(&t->turn);
}

/* A keyboard's word, under its lock: the turn is taken on the clock's thread. */
static void keyboard_changed(struct input_source *source)
{
    struct typist *t = (struct typist *)source;
    g_mutex_lock(&t->lock);
    bool poke = t->used && !t->pumping;
    t->again |= t->pumping;
    g_mutex_unlock(&t->lock);
    if (poke)
        timer_poke(&t->timer);
}

static void time_passed(void *owner)
{
    pump_locked(owner);
}

struct typist *typist_new(struct board *board, struct device *(*keyboard)(void *opaque),
                          void *opaque)
{
    struct typist *t = g_new0(struct typist, 1);
    t->source.changed = keyboard_changed;
    t->board = board;
    t->keyboard = keyboard;
    t->opaque = opaque;
    g_mutex_init(&t->lock);
    g_mutex_init(&t->turn);
    timer_init(&t->timer, board->clock, &t->turn, time_passed, t);
    return t;
}

struct input_source *typist_source(struct typist *typist)
{
    return &typist->source;
}

void typist_key(struct typist *t, uint8_t usage, bool down)
{
    push(t, &(struct stroke){ usage, 0, down }, 1, down ? TEXT_ROOM : ROOM);
    pump(t);
}

bool typist_chord(struct typist *t, const uint8_t *usages, unsigned count)
{
    struct stroke strokes[2 * TYPIST_CHORD];
    if (count > TYPIST_CHORD)
        return false;
    for (unsigned i = 0; i < count; i++) {
        strokes[i] = (struct stroke){ usages[i], PACED, true };
        strokes[2 * count - 1 - i] = (struct stroke){ usages[i], PACED | HELD, false };
    }
    bool fits = push(t, strokes, 2 * count, TEXT_ROOM);
    pump(t);
    return fits;
}

/* A character, with Shift around it where it wants that. */
static bool push_character(struct typist *t, uint8_t usage, bool shift)
{
    const struct stroke strokes[] = {
        { SHIFT, PACED, true },
        { usage, PACED, true },
        { usage, PACED, false },
        { SHIFT, PACED, false },
    };
    return push(t, strokes + !shift, shift ? 4 : 2, TEXT_ROOM);
}

unsigned typist_text(struct typist *t, const char *text, size_t length)
{
    unsigned left_out = 0;
    for (size_t i = 0; i < length; i++) {
        uint8_t usage;
        bool shift;
        if (!find_character(text[i], &usage, &shift))
            left_out += (text[i] & 0xc0) != 0x80; /* each UTF-8 character once */
        else
            left_out += !push_character(t, usage, shift);
    }
    pump(t);
    return left_out;
}

bool typist_busy(struct typist *t)
{
    struct stroke stroke;
    return peek(t, &stroke);
}
