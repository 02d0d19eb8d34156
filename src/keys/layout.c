/* Keyboard layouts; see layout.h.
 *
 * A layout is asked what a person would see: for each set of modifier keys that is held, what does
 * each key type? What a dead key makes of the letter after it is Unicode's composition, which
 * guests agree on; where they do not (the spacing accents other than ` ^ ~), the character counts
 * as lacking. */
#include "keys/layout.h"

#include "base/error.h"

#include <string.h>
#include <xkbcommon/xkbcommon-keysyms.h>
#include <xkbcommon/xkbcommon.h>

enum {
    KEY_1 = 0x1e,
    KEY_SPACE = 0x2c,
    KEY_EXTRA = 0x64,
    KEY_SHIFT = 0xe1,
    XKB_EVDEV = 8 /* between Linux's key codes and X's */
};

/* clang-format off */
/* The keys that type or shift, by HID usage, as Linux's key codes; 0: it does neither. */
static const uint8_t codes[256] = {
    [0x04] = 30, 48, 46, 32, 18, 33, 34, 35, 23, 36, 37, 38, 50, 49, 24, 25, 16, 19, 31, 20, 22, 47,
    17, 45, 21, 44, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, /* a to z, 1 to 9, 0 */
    [KEY_SPACE] = 57, 12, 13, 26, 27, 43, /* space - = [ ] \ */
    [0x33] = 39, 40, 41, 51, 52, 53, 58,  /* ; ' ` , . / Caps Lock */
    [0x64] = 86,                          /* beside the left Shift */
    [0x87] = 89, [0x89] = 124,            /* Ro, Yen */
    [KEY_SHIFT] = 42, [0xe6] = 100,       /* left Shift, AltGr */
};
/* clang-format on */

/* Dead keys: the accent as Unicode combines it, and by itself where guests agree on that. */
static const struct {
    xkb_keysym_t keysym;
    gunichar mark;
    char alone;
} dead_keys[] = {
    { XKB_KEY_dead_grave, 0x300, '`' },      { XKB_KEY_dead_acute, 0x301, 0 },
    { XKB_KEY_dead_circumflex, 0x302, '^' }, { XKB_KEY_dead_tilde, 0x303, '~' },
    { XKB_KEY_dead_macron, 0x304, 0 },       { XKB_KEY_dead_breve, 0x306, 0 },
    { XKB_KEY_dead_abovedot, 0x307, 0 },     { XKB_KEY_dead_diaeresis, 0x308, 0 },
    { XKB_KEY_dead_hook, 0x309, 0 },         { XKB_KEY_dead_abovering, 0x30a, 0 },
    { XKB_KEY_dead_doubleacute, 0x30b, 0 },  { XKB_KEY_dead_caron, 0x30c, 0 },
    { XKB_KEY_dead_horn, 0x31b, 0 },         { XKB_KEY_dead_belowdot, 0x323, 0 },
    { XKB_KEY_dead_cedilla, 0x327, 0 },      { XKB_KEY_dead_ogonek, 0x328, 0 },
};

struct reader {
    struct xkb_keymap *keymap;
    struct key_map *map;
    struct chord dead[G_N_ELEMENTS(dead_keys)];
    uint8_t shifts[3]; /* Shift, and what gives levels 3 and 5; 0: nothing does */
};

static xkb_keysym_t unshifted(struct reader *r, unsigned usage)
{
    const xkb_keysym_t *keysyms;
    int count =
        xkb_keymap_key_get_syms_by_level(r->keymap, codes[usage] + XKB_EVDEV, 0, 0, &keysyms);
    return codes[usage] && count == 1 ? keysyms[0] : XKB_KEY_NoSymbol;
}

static void find_shifts(struct reader *r)
{
    r->shifts[0] = KEY_SHIFT;
    for (unsigned usage = G_N_ELEMENTS(codes); usage-- > 0;) {
        xkb_keysym_t keysym = unshifted(r, usage);
        if (keysym == XKB_KEY_ISO_Level3_Shift && !r->shifts[1])
            r->shifts[1] = (uint8_t)usage;
        if (keysym == XKB_KEY_ISO_Level5_Shift && !r->shifts[2])
            r->shifts[2] = (uint8_t)usage;
    }
}

static void take_key(struct reader *r, xkb_keysym_t keysym, const struct chord *chord)
{
    gunichar character = xkb_keysym_to_utf32(keysym);
    if (character >= ' ' && !g_unichar_iscntrl(character))
        key_map_add(r->map, &(struct keystrokes){ character, { *chord } });
    for (size_t i = 0; i < G_N_ELEMENTS(dead_keys); i++)
        if (dead_keys[i].keysym == keysym && !chord_keys(&r->dead[i]))
            r->dead[i] = *chord;
}

/* What the keys type while those of `held`, bits of r->shifts, are down. Letters come last: what X
 * has on them with AltGr, though another key has it too, other systems have not. */
static void take_level(struct reader *r, unsigned held, bool extra)
{
    struct xkb_state *state = xkb_state_new(r->keymap);
    struct chord chord = { { 0 } };
    unsigned count = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(r->shifts); i++) {
        if (!(held >> i & 1))
            continue;
        if (!state || !r->shifts[i]) {
            xkb_state_unref(state);
            return;
        }
        chord.usage[count++] = r->shifts[i];
        xkb_state_update_key(state, codes[r->shifts[i]] + XKB_EVDEV, XKB_KEY_DOWN);
    }
    for (unsigned i = 0; state && i < G_N_ELEMENTS(codes); i++) {
        unsigned usage = (i + KEY_1) % G_N_ELEMENTS(codes);
        if (!codes[usage] || (usage >= KEY_EXTRA && usage < KEY_SHIFT) != extra)
            continue;
        chord.usage[count] = (uint8_t)usage;
        take_key(r, xkb_state_key_get_one_sym(state, codes[usage] + XKB_EVDEV), &chord);
    }
    xkb_state_unref(state);
}

/* Few keys first, and late those that not all keyboards have. */
static void take_levels(struct reader *r)
{
    static const uint8_t levels[] = { 0, 1, 2, 4, 3, 5, 6, 7 };
    enum { WITHOUT_ALTGR = 2 };
    for (size_t i = 0; i < 2 * WITHOUT_ALTGR; i++)
        take_level(r, levels[i % WITHOUT_ALTGR], i >= WITHOUT_ALTGR);
    for (size_t i = WITHOUT_ALTGR; i < G_N_ELEMENTS(levels); i++) {
        take_level(r, levels[i], false);
        take_level(r, levels[i], true);
    }
}

/* A dead key, then one that has a character of its own. */
static void add_pair(struct reader *r, gunichar character, const struct chord *dead,
                     const struct chord *base)
{
    key_map_add(r->map, &(struct keystrokes){ character, { *dead, *base } });
}

static void compose(struct reader *r)
{
    static const struct chord space = { { KEY_SPACE } };
    g_autofree struct keystrokes *bases = NULL;
    unsigned count = 0;
    while (key_map_at(r->map, count))
        count++;
    bases = g_memdup2(key_map_at(r->map, 0), count * sizeof *bases);
    for (size_t i = 0; i < G_N_ELEMENTS(dead_keys); i++) {
        if (!chord_keys(&r->dead[i]))
            continue;
        for (unsigned j = 0; j < count; j++) {
            gunichar character;
            if (g_unichar_compose(bases[j].character, dead_keys[i].mark, &character))
                add_pair(r, character, &r->dead[i], &bases[j].chord[0]);
        }
        if (dead_keys[i].alone)
            add_pair(r, (guchar)dead_keys[i].alone, &r->dead[i], &space);
    }
}

static void quiet(struct xkb_context *context, enum xkb_log_level level, const char *format,
                  va_list arguments)
{
    (void)context, (void)level, (void)format, (void)arguments;
}

/* "de" or "de(nodeadkeys)". */
static bool split(const char *name, char **layout, char **variant)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t length = strspn(name, allowed), more = 0;
    if (name[length] == '(') {
        more = strspn(name + length + 1, allowed);
        if (!more || strcmp(name + length + 1 + more, ")"))
            return false;
    }
    *layout = g_strndup(name, length);
    *variant = g_strndup(name + length + (more != 0), more);
    return length && (more || !name[length]);
}

static bool refuse(const char *name, const char *layout, GError **error)
{
    static const char *const known[] = {
        "us", "gb", "de", "fr", "es", "it", "pt", "br", "ch", "at", "be", "nl",    "dk", "no",
        "se", "fi", "pl", "cz", "hu", "ro", "tr", "ru", "ua", "jp", "ca", "latam", NULL,
    };
    const char *near = layout && !strcmp(layout, "uk")             ? "gb"
                       : layout && !g_strv_contains(known, layout) ? hv_nearest(layout, known)
                                                                   : NULL;
    return hv_fail(
        error, HV_USAGE,
        "--layout %s: there is no such keyboard layout%s%s%s (as X calls them: us, de, fr, "
        "de(nodeadkeys))",
        name, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

struct key_map *layout_open(const char *name, GError **error)
{
    g_autofree char *layout = NULL, *variant = NULL;
    if (!strcmp(name, "us"))
        return key_map_us();
    if (!split(name, &layout, &variant)) {
        refuse(name, NULL, error);
        return NULL;
    }
    struct xkb_context *context = xkb_context_new(XKB_CONTEXT_NO_ENVIRONMENT_NAMES);
    if (!context) {
        hv_fail(error, HV_HOST, "--layout %s: this host has no keyboard layouts (package xkb-data)",
                name);
        return NULL;
    }
    xkb_context_set_log_fn(context, quiet);
    const struct xkb_rule_names names = {
        .rules = "evdev", .model = "pc105", .layout = layout, .variant = variant, .options = ""
    };
    struct reader r = { .keymap = xkb_keymap_new_from_names(context, &names, 0) };
    if (r.keymap) {
        r.map = key_map_new();
        find_shifts(&r);
        take_levels(&r);
        compose(&r);
        xkb_keymap_unref(r.keymap);
    } else {
        refuse(name, layout, error);
    }
    xkb_context_unref(context);
    return r.map;
}
