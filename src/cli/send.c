/* hv send: keys, text and the pointer, as a client of the control socket. */
#include "base/display-protocol.h"
#include "base/error.h"
#include "base/fds.h"
#include "block/image.h"
#include "bus/input.h"
#include "cli/cli.h"
#include "keys/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    TEXT_PIECE = 4096,  /* bytes of text in a request: at most six of JSON for each */
    CHORDS_PIECE = 512, /* chords in one */
    SAY_WHY_MS = 10000, /* what is waited for so long is said */
    CLICK_US = 60 * 1000,
    PASTE_MAX = 64 << 20,
};

struct sender {
    struct client *client;
    const char *name, *layout;
    bool no_wait;
    unsigned left_out;
    char first[8]; /* of those */
};

/* --- waiting -------------------------------------------------------------------------------- */

/* A call; its result is forgotten. */
static bool call(struct sender *s, const char *method, json_t *params, GError **error)
{
    json_t *result = client_call(s->client, method, params, error);
    json_decref(result);
    return result;
}

/* Until the guest has taken all that was sent. */
static bool wait_typed(struct sender *s, GError **error)
{
    const char *machine = client_name(s->client);
    int patience = SAY_WHY_MS;
    for (;;) {
        bool ended;
        json_t *event = client_event(s->client, patience, &ended);
        const char *what = json_string_value(json_object_get(event, "method"));
        const char *state =
            json_string_value(json_object_get(json_object_get(event, "params"), "state"));
        bool typed = what && !strcmp(what, "typed");
        bool dead = ended || (what && !strcmp(what, "state") && state &&
                              (!strcmp(state, "off") || !strcmp(state, "crashed")));
        json_decref(event);
        if (typed)
            return true;
        if (dead)
            return hv_fail(error, HV_WRONG_STATE, "%s: its guest ended before it took all",
                           machine);
        if (!event && patience > 0) {
            fprintf(stderr,
                    "hv: %s: the guest has not taken all yet; Ctrl-C ends the waiting, not the "
                    "typing\n",
                    machine);
            patience = -1;
        }
    }
}

/* Sends one piece after the other by `method`: `piece` makes the parameters for what begins at an
 * index, and says how much that is. What finds no room waits for it. */
static bool send_all(struct sender *s, const char *method, const void *data, size_t total,
                     json_t *(*piece)(const void *data, size_t from, size_t total, size_t *length),
                     GError **error)
{
    bool typing = false;
    for (size_t done = 0; done < total;) {
        size_t length;
        json_t *params = piece(data, done, total, &length);
        json_t *result = client_call(s->client, method, params, error);
        if (!result)
            return false;
        size_t taken = (size_t)json_integer_value(json_object_get(result, "accepted"));
        const char *lacks = json_string_value(json_object_get(result, "first_left_out"));
        if (lacks && !s->left_out)
            g_strlcpy(s->first, lacks, sizeof s->first);
        s->left_out += (unsigned)json_integer_value(json_object_get(result, "left_out"));
        typing = json_is_true(json_object_get(result, "typing"));
        json_decref(result);
        done += MIN(taken, length);
        if (taken < length && typing && !wait_typed(s, error))
            return false;
        typing &= taken == length;
    }
    return !typing || s->no_wait || wait_typed(s, error);
}

/* --- text ----------------------------------------------------------------------------------- */

static json_t *text_piece(const void *data, size_t from, size_t total, size_t *length)
{
    const gunichar *characters = data;
    *length = MIN(total - from, TEXT_PIECE);
    g_autofree char *text = g_ucs4_to_utf8(characters + from, (glong)*length, NULL, NULL, NULL);
    return json_pack("{s:s}", "text", text ? text : "");
}

static json_t *chords_piece(const void *data, size_t from, size_t total, size_t *length)
{
    const struct chord *chords = data;
    json_t *list = json_array();
    *length = MIN(total - from, CHORDS_PIECE);
    for (size_t i = 0; i < *length; i++)
        json_array_append_new(list, chord_to_json(&chords[from + i]));
    return json_pack("{s:o}", "chords", list);
}

/* On another layout than the machine's: hv makes the chords. */
static bool send_by_layout(struct sender *s, const gunichar *text, GError **error)
{
    g_autoptr(key_map) map = layout_open(s->layout, error);
    g_autoptr(GArray) chords = g_array_new(false, false, sizeof(struct chord));
    for (; map && *text; text++) {
        const struct keystrokes *keys = key_map_find(map, *text);
        for (unsigned i = 0; keys && i < KEYSTROKES && chord_keys(&keys->chord[i]); i++)
            g_array_append_val(chords, keys->chord[i]);
        if (!keys && !s->left_out++)
            s->first[g_unichar_to_utf8(*text, s->first)] = 0;
    }
    return map && send_all(s, "send.keys", chords->data, chords->len, chords_piece, error);
}

static bool send_characters(struct sender *s, const char *text, GError **error)
{
    glong count;
    g_autofree gunichar *characters = g_utf8_to_ucs4(text, -1, NULL, &count, NULL);
    if (!characters)
        return hv_fail(error, HV_USAGE, "the text is not UTF-8");
    return s->layout ? send_by_layout(s, characters, error)
                     : send_all(s, "send.text", characters, (size_t)count, text_piece, error);
}

static bool send_text(struct sender *s, char **words, GError **error)
{
    g_autofree char *plain = g_strcompress(words[0]); /* escapes as printf has them */
    return send_characters(s, plain, error);
}

static bool send_paste(struct sender *s, char **words, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    char chunk[65536];
    size_t n;
    (void)words;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0 && text->len <= PASTE_MAX)
        g_string_append_len(text, chunk, (gssize)n);
    if (text->len > PASTE_MAX || strlen(text->str) != text->len)
        return hv_fail(error, HV_USAGE, "the standard input is no text, or longer than 64 MiB");
    return send_characters(s, text->str, error);
}

static bool send_key(struct sender *s, char **words, GError **error)
{
    bool typing = false;
    for (; *words; words++) {
        g_auto(GStrv) names = g_strsplit(*words, "+", -1);
        json_t *keys = json_array();
        for (char **name = names; *name; name++)
            json_array_append_new(keys, json_string(*name));
        json_t *result =
            client_call(s->client, "send.key", json_pack("{s:o}", "keys", keys), error);
        if (!result)
            return false;
        typing = json_is_true(json_object_get(result, "typing"));
        json_decref(result);
    }
    return !typing || s->no_wait || wait_typed(s, error);
}

/* --- the pointer ---------------------------------------------------------------------------- */

/* The size of the picture, from the display socket. */
static bool picture_size(const char *machine, uint32_t *width, uint32_t *height, GError **error)
{
    const struct timeval patience = { .tv_sec = 5 };
    struct display_message message = { .kind = DISPLAY_HELLO };
    int fd = display_connect(machine, error), frame = -1;
    unsigned count = 0;
    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t n = fds_receive(fd, &message, sizeof message, &frame, 1, &count, NULL);
    fds_close(&frame, count);
    while (n == (ssize_t)sizeof message && message.kind != DISPLAY_MODE)
        n = recv(fd, &message, sizeof message, 0);
    close(fd);
    *width = message.a;
    *height = message.b;
    return (n == (ssize_t)sizeof message && message.a && message.b) ||
           hv_fail(error, HV_FAILED, "%s shows no picture", machine);
}

static bool two_numbers(const char *word, int *x, int *y, GError **error)
{
    char extra;
    return (word && sscanf(word, "%d,%d%c", x, y, &extra) == 2) ||
           hv_fail(error, HV_USAGE, "\"%s\": two numbers are wanted, such as 320,200",
                   word ? word : "");
}

/* {"x":, "y":} of a place in the picture as a user writes it; NULL with an error. */
static json_t *place(struct sender *s, const char *word, GError **error)
{
    int x, y;
    uint32_t width, height;
    if (!two_numbers(word, &x, &y, error) ||
        !picture_size(client_name(s->client), &width, &height, error))
        return NULL;
    if (x < 0 || y < 0 || (uint32_t)x >= width || (uint32_t)y >= height) {
        hv_fail(error, HV_USAGE, "%d,%d: the picture has %u x %u pixels", x, y, width, height);
        return NULL;
    }
    return json_pack("{s:i, s:i}", "x", pointer_position((uint32_t)x, width), "y",
                     pointer_position((uint32_t)y, height));
}

/* The pointer is at `at` (NULL: where it is) with a button pressed, or without. */
static bool press(struct sender *s, json_t *at, const char *button, GError **error)
{
    json_t *params = at ? json_deep_copy(at) : json_object();
    json_object_set_new(params, "buttons", button ? json_pack("[s]", button) : json_array());
    bool ok = call(s, "send.pointer", params, error);
    g_usleep(CLICK_US); /* guests look now and then */
    return ok;
}

/* click [left|right|middle|double] [at X,Y] */
static bool send_click(struct sender *s, char **words, GError **error)
{
    static const char *const buttons[] = { "left", "right", "middle", "double", NULL };
    const char *button = buttons[0];
    json_t *at = NULL;
    if (words[0] && strcmp(words[0], "at") && !g_strv_contains(buttons, words[0])) {
        const char *near = hv_nearest(words[0], buttons);
        return hv_fail(error, HV_USAGE, "there is no button \"%s\"%s%s%s", words[0],
                       near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    if (words[0] && strcmp(words[0], "at"))
        button = *words++;
    if (words[0] && (strcmp(words[0], "at") || !words[1] || words[2]))
        return hv_fail(error, HV_USAGE, "click: [BUTTON] [at X,Y] is wanted");
    if (words[0] && !(at = place(s, words[1], error)))
        return false;
    bool twice = !strcmp(button, "double"), ok = true;
    if (at)
        ok = press(s, at, NULL, error);
    for (unsigned i = 0; ok && i < (twice ? 2 : 1); i++)
        ok = press(s, at, twice ? buttons[0] : button, error) && press(s, at, NULL, error);
    json_decref(at);
    return ok;
}

/* move X,Y, or by DX,DY */
static bool send_move(struct sender *s, char **words, GError **error)
{
    int x, y;
    bool by = !strcmp(words[0], "by");
    if (!by && words[1])
        return hv_fail(error, HV_USAGE, "move: X,Y or by DX,DY is wanted");
    json_t *at = by ? NULL : place(s, words[0], error);
    if (!by)
        return at && call(s, "send.pointer", at, error);
    return two_numbers(words[1], &x, &y, error) &&
           call(s, "send.pointer", json_pack("{s:i, s:i}", "dx", x, "dy", y), error);
}

static bool send_scroll(struct sender *s, char **words, GError **error)
{
    char *end;
    long steps = strtol(words[0], &end, 10);
    if (end == words[0] || *end || steps < -100 || steps > 100)
        return hv_fail(error, HV_USAGE,
                       "scroll: \"%s\": a number of steps from -100 (down) to 100 (up) is wanted",
                       words[0]);
    return call(s, "send.pointer", json_pack("{s:i}", "wheel", (int)steps), error);
}

/* --- the verb ------------------------------------------------------------------------------- */

static const struct what {
    const char *name;
    bool (*send)(struct sender *s, char **words, GError **error);
    int least, most; /* words */
    const char *wanted;
} whats[] = {
    { "click", send_click, 0, 3, "[left|right|middle|double] [at X,Y]" },
    { "key", send_key, 1, 64, "keys such as ctrl+alt+del or f2" },
    { "move", send_move, 1, 2, "X,Y or by DX,DY" },
    { "paste", send_paste, 0, 0, "nothing more: the text comes on the standard input" },
    { "scroll", send_scroll, 1, 1, "a number of steps" },
    { "text", send_text, 1, 1, "one text (in quotes)" },
    { .name = NULL },
};

static const struct what *find_what(const char *word)
{
    const struct what *what = whats;
    while (what->name && strcmp(what->name, word ? word : ""))
        what++;
    return what->name ? what : NULL;
}

/* [NAME] WHAT ...; a machine may be called as what is sent. */
static const struct what *take_words(int count, char **words, const char **name, int *used)
{
    const struct what *first = find_what(words[0]), *second = find_what(words[1]);
    g_autofree char *machines = first && second ? machines_dir(NULL) : NULL;
    bool named = second && (!first || (count > 2 && machines && machine_runs(machines, words[0])));
    *name = named ? words[0] : NULL;
    *used = 1 + named;
    return named ? second : first;
}

static int said_left_out(const struct sender *s)
{
    if (s->left_out)
        fprintf(stderr,
                "hv: %u characters were left out: the guest's keyboard layout lacks them (the "
                "first is \"%s\"); --layout says which it is\n",
                s->left_out, s->first);
    return s->left_out ? HV_FAILED : HV_OK;
}

int verb_send(int argc, char **argv)
{
    struct sender s = { .client = NULL };
    const struct flag flags[] = {
        { "layout", NULL, &s.layout },
        { "no-wait", &s.no_wait, NULL },
        { .name = NULL },
    };
    int left = cli_flags("send", argc, argv, flags), used;
    GError *error = NULL;
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    const struct what *what = left ? take_words(left, argv, &s.name, &used) : NULL;
    if (!what)
        return cli_usage("send", "click, key, move, paste, scroll or text is wanted");
    if (left - used < what->least || left - used > what->most)
        return cli_usage("send", "%s: %s", what->name, what->wanted);
    s.client = client_open(s.name, &error);
    bool ok = s.client && call(&s, "events", NULL, &error) && what->send(&s, argv + used, &error);
    client_close(s.client);
    return ok ? said_left_out(&s) : cli_fail(error);
}
