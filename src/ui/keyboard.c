/* Keys of the window; see keyboard.h. The window's thread. */
#include "ui/keyboard.h"

#include <string.h>

#include "base/error.h"

struct host_key {
    const char *option, *name;
    uint8_t usage;
};
static const struct host_key host_keys[] = {
    { "right-ctrl", "Right Ctrl", KEY_RIGHT_CTRL },
    { "left-ctrl", "Left Ctrl", KEY_LEFT_CTRL },
    { "right-alt", "Right Alt", KEY_RIGHT_ALT },
    { "left-alt", "Left Alt", KEY_LEFT_ALT },
    { "right-super", "Right Super", KEY_RIGHT_META },
    { "left-super", "Left Super", KEY_LEFT_META },
    { "right-shift", "Right Shift", KEY_RIGHT_SHIFT },
    { "menu", "Menu", KEY_MENU },
    { "pause", "Pause", KEY_PAUSE },
    { "scroll-lock", "Scroll Lock", KEY_SCROLL_LOCK },
};

/* Keys of the consumer page, which SDL numbers from 257 on. Page 7 has no usages for them; E8 to FB
 * are those that USB keyboards and Linux's usbkbd use, FC to FF are ours. */
struct extra_key {
    uint16_t scancode; /* SDL_SCANCODE_... */
    uint8_t usage;
};
static const struct extra_key extra_keys[] = {
    { 258, 0xeb }, /* AUDIONEXT */
    { 259, 0xea }, /* AUDIOPREV */
    { 260, 0xe9 }, /* AUDIOSTOP */
    { 261, 0xe8 }, /* AUDIOPLAY */
    { 262, 0x7f }, /* AUDIOMUTE */
    { 263, 0xfe }, /* MEDIASELECT */
    { 264, 0xf0 }, /* WWW */
    { 265, 0xfc }, /* MAIL */
    { 266, 0xfb }, /* CALCULATOR */
    { 267, 0xfd }, /* COMPUTER */
    { 268, 0xf4 }, /* AC_SEARCH */
    { 269, 0xf0 }, /* AC_HOME */
    { 270, 0xf1 }, /* AC_BACK */
    { 271, 0xf2 }, /* AC_FORWARD */
    { 272, 0xf3 }, /* AC_STOP */
    { 273, 0xfa }, /* AC_REFRESH */
    { 274, 0xff }, /* AC_BOOKMARKS */
    { 281, 0xec }, /* EJECT */
    { 282, 0xf8 }, /* SLEEP */
};

bool keyboard_host_key(struct keyboard *keyboard, const char *name, GError **error)
{
    g_autoptr(GPtrArray) known = g_ptr_array_new();
    for (size_t i = 0; i < G_N_ELEMENTS(host_keys); i++) {
        if (strcmp(name, host_keys[i].option) == 0) {
            keyboard->host_key = host_keys[i].usage;
            return true;
        }
        g_ptr_array_add(known, (char *)host_keys[i].option);
    }
    g_ptr_array_add(known, NULL);
    g_autofree char *list = g_strjoinv(", ", (char **)known->pdata);
    return hv_fail(error, HV_USAGE, "--host-key: no key is called '%s'; there are %s", name, list);
}

const char *keyboard_host_name(const struct keyboard *keyboard)
{
    for (size_t i = 0; i < G_N_ELEMENTS(host_keys); i++) {
        if (host_keys[i].usage == keyboard->host_key)
            return host_keys[i].name;
    }
    return "Host key";
}

/* 0 for what is no key (HUT: usages 0 to 3 are none or errors). */
static uint8_t usage_of(uint32_t scancode)
{
    if (scancode >= KEY_A && scancode <= KEY_RIGHT_META)
        return (uint8_t)scancode;
    for (size_t i = 0; i < G_N_ELEMENTS(extra_keys); i++) {
        if (extra_keys[i].scancode == scancode)
            return extra_keys[i].usage;
    }
    return 0;
}

static enum keyboard_verdict host_key_event(struct keyboard *keyboard, bool down)
{
    bool tapped = !down && keyboard->host_held && !keyboard->host_used;
    if (down && !keyboard->host_held)
        keyboard->host_used = false;
    keyboard->host_held = down;
    return tapped ? KEYBOARD_TAPPED : KEYBOARD_NOTHING;
}

enum keyboard_verdict keyboard_event(struct keyboard *keyboard, uint32_t scancode,
                                     enum keyboard_change change, uint8_t *usage)
{
    *usage = usage_of(scancode);
    if (!*usage)
        return KEYBOARD_NOTHING;
    if (*usage == keyboard->host_key)
        return host_key_event(keyboard, change != KEYBOARD_UP);
    bool held = keyboard->down[*usage];
    if (change != KEYBOARD_DOWN) {
        keyboard->down[*usage] = held && change == KEYBOARD_REPEAT;
        return held ? KEYBOARD_GUEST : KEYBOARD_NOTHING;
    }
    if (keyboard->host_held) {
        keyboard->host_used = true;
        return KEYBOARD_COMMAND;
    }
    keyboard->down[*usage] = true;
    return KEYBOARD_GUEST;
}

void keyboard_release(struct keyboard *keyboard, void (*release)(void *data, uint8_t usage),
                      void *data)
{
    keyboard->host_held = false;
    for (unsigned usage = 0; usage < G_N_ELEMENTS(keyboard->down); usage++) {
        if (keyboard->down[usage])
            release(data, (uint8_t)usage);
        keyboard->down[usage] = false;
    }
}
