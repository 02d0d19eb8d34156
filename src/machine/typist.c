/* The typist; see typist.h. */
#include "machine/typist.h"

#include <string.h>

enum {
    /* Chords that may wait: the longest text of a window or a request, 64 KiB, all with dead keys;
     * and the releases of keys that are down, so that none stays down. */
    TEXT_ROOM = 2 * 65536,
    ROOM = TEXT_ROOM + 512,
    CAPS_LOCK = 0x39,
    /* How a chord is typed: as a person's key that only goes down, or up; else paced by the guest,
     * as text, and with the time that a finger takes. */
    DOWN = 1,
    UP = 2,
    TEXT = 4,
    HELD = 8,
    HOLD_NS = 100 * 1000 * 1000,
    PACE_NS = 2 * 1000 * 1000, /* between keys when nobody knows whether the guest took them */
    /* How often a keyboard is looked at that cannot tell when the guest takes keys; and how long
     * until the typist goes on all the same: such a one loses none, it refuses when it is full. */
    LOOK_MIN_NS = 100 * 1000,
    LOOK_MAX_NS = 5 * 1000 * 1000,
    SILENT_PATIENCE_NS = 250 * 1000 * 1000,
    LAMP_LOOK_NS = 20 * 1000 * 1000,
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
/* How long a key waits at a keyboard that the guest has left for another; and Caps Lock's lamp. */
#define LEFT_PATIENCE_NS NS_PER_SECOND
#define LAMP_PATIENCE_NS NS_PER_SECOND

struct item {
    struct chord chord;
    uint8_t flags;
};

struct typist {
    struct input_source source;
    struct board *board;
    struct device *(*keyboard)(void *opaque);
    void *opaque;
    struct key_map *map;
    void (*typed)(void *opaque);
    void *typed_opaque;

    GMutex lock; /* protects the queue and the two flags; a leaf */
    struct item queue[ROOM];
    unsigned begin, used;
    bool pumping, again; /* again: a keyboard changed meanwhile */

    GMutex turn;        /* protects the rest; taken before a keyboard's lock */
    struct timer timer; /* for what waits for time to pass, or was told by a keyboard */
    /* Of the first chord: how many of its keys have gone down and up again, and the keyboard that
     * has got the next one, which the guest has not taken yet. */
    unsigned step;
    struct device *flying;
    uint64_t given;      /* when the last key went to the keyboard, guest ns */
    uint64_t pressed;    /* when the last one went down */
    uint64_t caps_until; /* the guest has until then to put Caps Lock's lamp out; 0: no matter */
    uint64_t bios_since; /* when the head of the BIOS's queue last moved */
    uint16_t bios_head;
    bool forgotten; /* the guest does not know any more what is held */
    bool typing;    /* what was typed lately is to be told of when nothing waits any more */
    struct device *held[256]; /* by usage: the keyboard on which the key is down */
};

/* --- the queue ------------------------------------------------------------------------------ */

/* All of the chords, or none when they do not fit. */
static bool push(struct typist *t, const struct item *items, unsigned count, unsigned room)
{
    g_mutex_lock(&t->lock);
    bool fits = t->used + count <= room;
    for (unsigned i = 0; fits && i < count; i++)
        t->queue[(t->begin + t->used++) % ROOM] = items[i];
    g_mutex_unlock(&t->lock);
    return fits;
}

static void push_front(struct typist *t, const struct item *item)
{
    g_mutex_lock(&t->lock);
    if (t->used < ROOM) {
        t->begin = (t->begin + ROOM - 1) % ROOM;
        t->used++;
        t->queue[t->begin] = *item;
    }
    g_mutex_unlock(&t->lock);
}

static bool peek(struct typist *t, struct item *item)
{
    g_mutex_lock(&t->lock);
    bool any = t->used > 0;
    if (any)
        *item = t->queue[t->begin];
    g_mutex_unlock(&t->lock);
    return any;
}

static void pop(struct typist *t)
{
    g_mutex_lock(&t->lock);
    t->begin = --t->used ? (t->begin + 1) % ROOM : 0; /* touches no more pages than it needs */
    g_mutex_unlock(&t->lock);
    t->step = 0;
}

/* --- when ----------------------------------------------------------------------------------- */

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

/* Looks again at `at`; false, for who has to wait. */
static bool look_at(struct typist *t, uint64_t at)
{
    timer_set(&t->timer, at);
    return false;
}

/* At a keyboard that does not tell: soon at first, then more and more rarely. */
static bool look_soon(struct typist *t, uint64_t now)
{
    return look_at(t, now + CLAMP((now - t->given) / 2, LOOK_MIN_NS, LOOK_MAX_NS));
}

static bool caps_is_on(struct device *keyboard)
{
    const struct input_class *input = keyboard->class->input;
    return input->lamps && input->lamps(keyboard) & LAMP_CAPS;
}

/* Before text: letters would come out in the other case. A guest that does not put the lamp out
 * means something else by it. The keyboard's lock is held. */
static bool caps_is_off(struct typist *t, struct device *keyboard, uint64_t now)
{
    static const struct item tap = { { { CAPS_LOCK } }, 0 };
    if (!caps_is_on(keyboard)) {
        t->caps_until = 0;
        return true;
    }
    if (!t->caps_until) {
        t->caps_until = now + LAMP_PATIENCE_NS;
        push_front(t, &tap);
        return look_at(t, now);
    }
    return now >= t->caps_until || look_at(t, now + LAMP_LOOK_NS);
}

/* Is it time for a paced key? Else the timer or the keyboard will tell. The keyboard's lock is
 * held. */
static bool is_due(struct typist *t, struct device *keyboard, const struct item *item, bool down)
{
    const struct input_class *input = keyboard->class->input;
    uint64_t now = clock_now(t->board->clock), later = 0;
    if (input->idle && !input->idle(keyboard))
        return input->silent && now - t->given < SILENT_PATIENCE_NS ? look_soon(t, now)
                                                                    : input->silent;
    if (!input->idle)
        later = t->given + PACE_NS;
    /* A guest with a driver for another keyboard has left the BIOS. */
    if (down && !input->active && bios_has_keys(t))
        later = now + BIOS_LOOK_NS;
    if (!down && item->flags & HELD)
        later = MAX(later, t->pressed + HOLD_NS);
    if (later > now)
        return look_at(t, later);
    return !(item->flags & TEXT) || t->step || caps_is_off(t, keyboard, now);
}

/* --- one key after the other ---------------------------------------------------------------- */

static bool paced(const struct item *item)
{
    return !(item->flags & (DOWN | UP));
}

/* The key of the chord that comes next. */
static uint8_t next_key(const struct typist *t, const struct item *item, bool *down)
{
    unsigned count = chord_keys(&item->chord);
    *down = paced(item) ? t->step < count : item->flags & DOWN;
    unsigned index = t->step < count ? t->step : 2 * count - 1 - t->step;
    return item->chord.usage[index & (CHORD_KEYS - 1)];
}

static void key_is_through(struct typist *t, const struct item *item)
{
    t->flying = NULL;
    if (++t->step >= (paced(item) ? 2 : 1) * chord_keys(&item->chord))
        pop(t);
}

/* The guest will never take it: once more, with what has to be held meanwhile. */
static void key_is_lost(struct typist *t, const struct item *item)
{
    t->flying = NULL;
    if (t->step < chord_keys(&item->chord))
        t->step = 0;
}

/* The guest listens to another keyboard now and has not looked at this one for long. */
static void leave_keyboard(struct typist *t, struct device *left, const struct item *item)
{
    device_lock(left);
    for (unsigned usage = 0; usage < G_N_ELEMENTS(t->held); usage++)
        if (t->held[usage] == left) {
            left->class->input->key(left, (uint8_t)usage, false);
            t->held[usage] = NULL;
        }
    device_unlock(left);
    key_is_lost(t, item);
}

/* What has become of the key that a keyboard has got? False: nothing yet. */
static bool settle(struct typist *t, const struct device *keyboard, const struct item *item)
{
    struct device *flying = t->flying;
    const struct input_class *input = flying->class->input;
    uint64_t now = clock_now(t->board->clock), age = now - t->given;
    device_lock(flying);
    unsigned loss = input->lost ? input->lost(flying) : 0;
    bool lost = loss & KEYS_LOST;
    t->forgotten |= (loss & KEYS_FORGOTTEN) != 0;
    bool taken = !lost && (input->idle(flying) || (input->silent && age >= SILENT_PATIENCE_NS));
    if (!lost && !taken && input->silent)
        look_soon(t, now);
    device_unlock(flying);
    if (lost || (taken && t->forgotten && t->step + 1 < chord_keys(&item->chord))) {
        key_is_lost(t, item);
    } else if (taken) {
        key_is_through(t, item);
    } else if (keyboard != flying && age >= LEFT_PATIENCE_NS) {
        leave_keyboard(t, flying, item);
    } else {
        if (keyboard != flying)
            look_at(t, t->given + LEFT_PATIENCE_NS);
        return false;
    }
    return true;
}

/* False when the key has to wait. */
static bool give(struct typist *t, struct device *keyboard, const struct item *item)
{
    const struct input_class *input = keyboard->class->input;
    bool down, wait = paced(item);
    device_lock(keyboard);
    if (wait && input->lost && input->lost(keyboard))
        key_is_lost(t, item);
    uint8_t usage = next_key(t, item, &down);
    bool given = (!wait || is_due(t, keyboard, item, down)) && input->key(keyboard, usage, down);
    device_unlock(keyboard);
    if (!given)
        return false;
    t->held[usage] = down ? keyboard : NULL;
    t->forgotten = false;
    t->given = clock_now(t->board->clock);
    if (down)
        t->pressed = t->given;
    if (wait && input->idle)
        t->flying = keyboard;
    else
        key_is_through(t, item);
    return true;
}

/* The first chord goes on by a key, or a key has been taken. False when it has to wait. */
static bool go_on(struct typist *t, struct device *keyboard, const struct item *item)
{
    bool down;
    if (t->flying)
        return settle(t, keyboard, item);
    struct device *held = t->held[next_key(t, item, &down)];
    if (down || !held)
        held = keyboard;
    return held && give(t, held, item);
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
    struct item item;
    g_mutex_lock(&t->lock);
    t->pumping = true;
    g_mutex_unlock(&t->lock);
    do {
        struct device *keyboard = t->keyboard(t->opaque);
        while (peek(t, &item) && go_on(t, keyboard, &item))
            t->typing |= paced(&item);
    } while (another_turn(t));
    if (!t->typing || !t->typed || typist_busy(t))
        return;
    t->typing = false;
    t->typed(t->typed_opaque);
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

/* --- for others ----------------------------------------------------------------------------- */

struct typist *typist_new(struct board *board, struct device *(*keyboard)(void *opaque),
                          void *opaque)
{
    struct typist *t = g_new0(struct typist, 1);
    t->source.changed = keyboard_changed;
    t->board = board;
    t->keyboard = keyboard;
    t->opaque = opaque;
    t->map = key_map_us();
    g_mutex_init(&t->lock);
    g_mutex_init(&t->turn);
    timer_init(&t->timer, board->clock, &t->turn, time_passed, t);
    return t;
}

void typist_free(struct typist *t)
{
    timer_finish(&t->timer);
    key_map_free(t->map);
    g_mutex_clear(&t->lock);
    g_mutex_clear(&t->turn);
    g_free(t);
}

struct input_source *typist_source(struct typist *typist)
{
    return &typist->source;
}

void typist_set_map(struct typist *t, struct key_map *map)
{
    key_map_free(t->map);
    t->map = map;
}

void typist_on_typed(struct typist *t, void (*typed)(void *opaque), void *opaque)
{
    t->typed = typed;
    t->typed_opaque = opaque;
}

void typist_key(struct typist *t, uint8_t usage, bool down)
{
    const struct item item = { { { usage } }, down ? DOWN : UP };
    push(t, &item, 1, down ? TEXT_ROOM : ROOM - 1); /* one is for Caps Lock */
    pump(t);
}

bool typist_chord(struct typist *t, const struct chord *chord, bool hold)
{
    const struct item item = { *chord, hold ? HELD : TEXT };
    bool fits = !chord_keys(chord) || push(t, &item, 1, TEXT_ROOM);
    pump(t);
    return fits;
}

static bool push_character(struct typist *t, const struct keystrokes *keys)
{
    struct item items[KEYSTROKES];
    unsigned count = 0;
    while (count < KEYSTROKES && chord_keys(&keys->chord[count])) {
        items[count] = (struct item){ keys->chord[count], TEXT };
        count++;
    }
    return push(t, items, count, TEXT_ROOM);
}

struct typist_answer typist_text(struct typist *t, const char *text, size_t length)
{
    struct typist_answer answer = { .taken = 0 };
    while (answer.taken < length) {
        const char *at = text + answer.taken;
        gunichar character = g_utf8_get_char_validated(at, (gssize)(length - answer.taken));
        bool valid = *at && character < (gunichar)-2;
        size_t bytes = valid ? (size_t)(g_utf8_next_char(at) - at) : 1;
        const struct keystrokes *keys = valid ? key_map_find(t->map, character) : NULL;
        if (keys && !push_character(t, keys))
            break;
        if (!keys && !answer.left_out++)
            answer.first = valid ? character : 0xfffd;
        answer.taken += bytes;
        answer.characters++;
    }
    pump(t);
    return answer;
}

bool typist_busy(struct typist *t)
{
    struct item item;
    return peek(t, &item);
}
