/* Messages from the machine, judged; see protocol.h. Any thread, on the caller's own model. */
#include "ui/protocol.h"

#include <string.h>

#include "base/error.h"

static bool broken(GError **error, const char *what)
{
    return hv_fail(error, HV_FAILED,
                   "the machine sent %s: are hv-vmm and hv-view from the same version of hv?",
                   what);
}

/* Text for people: whole UTF-8, one line, no control characters. */
static void take_text(char to[static DISPLAY_TEXT_MAX + 1], const char *from)
{
    g_autofree char *cut = g_strndup(from, DISPLAY_TEXT_MAX);
    g_autofree char *valid = g_utf8_make_valid(cut, -1);
    for (char *p = valid; *p; p = g_utf8_next_char(p)) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    }
    /* Replacement characters are longer than what they replace: cut again, at a character. */
    size_t keep = strlen(valid);
    if (keep > DISPLAY_TEXT_MAX)
        keep = protocol_text_piece(valid, keep);
    memcpy(to, valid, keep);
    to[keep] = 0;
}

static bool take_hello(struct model *model, const struct display_message *m, unsigned fds,
                       uint64_t file_bytes, GError **error)
{
    uint64_t bytes = m->a | (uint64_t)m->b << 32;
    if (model->greeted)
        return broken(error, "a second greeting");
    if (fds != 1)
        return broken(error, "a greeting without a frame");
    if (!bytes || bytes > file_bytes)
        return broken(error, "a frame that is smaller than it says");
    model->greeted = true;
    model->frame_bytes = (size_t)MIN(bytes, FRAME_BYTES_MAX);
    take_text(model->name, m->text);
    return true;
}

static bool take_mode(struct model *model, const struct display_message *m, GError **error)
{
    if (!m->a || !m->b || m->a > SCREEN_MAX_WIDTH || m->b > SCREEN_MAX_HEIGHT ||
        (uint64_t)m->a * m->b * sizeof(uint32_t) > model->frame_bytes)
        return broken(error, "a screen size outside its frame");
    model->width = m->a;
    model->height = m->b;
    model->damage = (struct rectangle){ 0, 0, m->a, m->b };
    model->changed_mode = true;
    return true;
}

static void take_damage(struct model *model, const struct display_message *m)
{
    if (m->a >= model->width || m->b >= model->height)
        return;
    struct rectangle damage = { m->a, m->b, MIN(m->c, model->width - m->a),
                                MIN(m->d, model->height - m->b) };
    model->damage = rectangle_join(model->damage, damage);
}

static bool take_state(struct model *model, const struct display_message *m, GError **error)
{
    if (m->a > STATE_OFF)
        return broken(error, "an unknown state");
    model->state = (enum display_state)m->a;
    model->lamps = m->b;
    model->disk = m->c;
    model->pasting = m->d & DISPLAY_TYPING;
    model->absolute = m->d & DISPLAY_ABSOLUTE;
    take_text(model->reason, m->text);
    return true;
}

bool protocol_take(struct model *model, const struct display_message *message, size_t length,
                   unsigned fds, uint64_t file_bytes, GError **error)
{
    if (length != sizeof *message)
        return broken(error, "a message of a wrong size");
    if (fds && message->kind != DISPLAY_HELLO)
        return broken(error, "a descriptor with a message that has none");
    if (!model->greeted && message->kind != DISPLAY_HELLO)
        return broken(error, "something else than a greeting first");
    switch (message->kind) {
    case DISPLAY_HELLO:
        return take_hello(model, message, fds, file_bytes, error);
    case DISPLAY_MODE:
        return take_mode(model, message, error);
    case DISPLAY_DAMAGE:
        take_damage(model, message);
        return true;
    case DISPLAY_STATE:
        return take_state(model, message, error);
    default:
        return true;
    }
}

struct rectangle rectangle_join(struct rectangle a, struct rectangle b)
{
    if (!a.width || !a.height)
        return b;
    if (!b.width || !b.height)
        return a;
    uint32_t x = MIN(a.x, b.x), y = MIN(a.y, b.y);
    return (struct rectangle){ x, y, MAX(a.x + a.width, b.x + b.width) - x,
                               MAX(a.y + a.height, b.y + b.height) - y };
}

size_t protocol_text_piece(const char *text, size_t length)
{
    if (length <= DISPLAY_TEXT_MAX)
        return length;
    size_t piece = DISPLAY_TEXT_MAX;
    /* A character has at most three bytes that continue it (10xxxxxx). */
    for (unsigned back = 0; back < 3 && ((unsigned char)text[piece] & 0xc0) == 0x80; back++)
        piece--;
    return ((unsigned char)text[piece] & 0xc0) == 0x80 ? DISPLAY_TEXT_MAX : piece;
}
