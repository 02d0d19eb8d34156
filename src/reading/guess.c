/* tesseract's C API (capi.h of tesseract 4 and 5), bound at run time: reading_guess of reading.h.
 */
#include "reading/reading-core.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "base/error.h"
#include "reading/font.h"

enum {
    SCALE = 3, /* it knows print at 300 dots per inch; letters of screens are a third of that */
    SURE = 40, /* per cent; below, it is noise more often than text */
};

struct tesseract {
    void *library, *handle;
    void *(*create)(void);
    void (*delete)(void *handle);
    int (*init)(void *handle, const char *data, const char *language);
    void (*set_image)(void *handle, const unsigned char *data, int width, int height,
                      int bytes_per_pixel, int bytes_per_line);
    void (*set_resolution)(void *handle, int ppi);
    int (*set_variable)(void *handle, const char *name, const char *value);
    char *(*tsv)(void *handle, int page);
    void (*delete_text)(const char *text);
};

static bool bind(struct tesseract *t)
{
    const struct {
        const char *name;
        void *function;
    } functions[] = {
        { "TessBaseAPICreate", &t->create },
        { "TessBaseAPIDelete", &t->delete },
        { "TessBaseAPIInit3", &t->init },
        { "TessBaseAPISetImage", &t->set_image },
        { "TessBaseAPISetSourceResolution", &t->set_resolution },
        { "TessBaseAPISetVariable", &t->set_variable },
        { "TessBaseAPIGetTsvText", &t->tsv },
        { "TessDeleteText", &t->delete_text },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(functions); i++) {
        void *found = dlsym(t->library, functions[i].name);
        if (!found)
            return false;
        *(void **)functions[i].function = found;
    }
    return true;
}

static bool tesseract_open(struct tesseract *t, GError **error)
{
    t->library = dlopen("libtesseract.so.5", RTLD_NOW | RTLD_LOCAL);
    const char *missing = font_missing();
    if (!t->library || !bind(t))
        return hv_fail(error, HV_WRONG_STATE,
                       "the screen has no text in a known font%s%s, and tesseract, which may read "
                       "other text, is not installed (Debian: libtesseract5, tesseract-ocr-eng)",
                       *missing ? "; hv was built without those of " : "", missing);
    t->handle = t->create();
    if (!t->handle || t->init(t->handle, NULL, "eng"))
        return hv_fail(error, HV_WRONG_STATE,
                       "tesseract does not start: its data for English are missing (Debian: "
                       "tesseract-ocr-eng)");
    t->set_variable(t->handle, "debug_file", "/dev/null");
    return true;
}

static void tesseract_close(struct tesseract *t)
{
    if (t->handle)
        t->delete (t->handle);
    if (t->library)
        dlclose(t->library);
}

/* Grey, enlarged, and dark on light, as print is. */
static unsigned char *prepare(const uint32_t *pixels, uint32_t width, struct rectangle where)
{
    size_t columns = (size_t)where.width * SCALE, rows = (size_t)where.height * SCALE;
    unsigned char *grey = g_malloc(columns * rows);
    uint64_t sum = 0;
    for (size_t y = 0; y < rows; y++) {
        const uint32_t *line = pixels + (where.y + y / SCALE) * width + where.x;
        for (size_t x = 0; x < columns; x++) {
            uint32_t p = line[x / SCALE];
            uint32_t light = ((p >> 16 & 255) * 77 + (p >> 8 & 255) * 150 + (p & 255) * 29) >> 8;
            grey[y * columns + x] = (unsigned char)light;
            sum += light;
        }
    }
    if (sum < columns * rows * 128) {
        for (size_t i = 0; i < columns * rows; i++)
            grey[i] = (unsigned char)~grey[i];
    }
    return grey;
}

/* A line of its table: level page block paragraph line word left top width height sureness text. */
static void take_line(GArray *words, const char *line, struct rectangle where, guint64 *last)
{
    g_auto(GStrv) part = g_strsplit(line, "\t", 12);
    if (g_strv_length(part) != 12 || strtol(part[0], NULL, 10) != 5 ||
        g_ascii_strtod(part[10], NULL) < SURE || !*g_strstrip(part[11]))
        return;
    guint64 key = 0;
    uint32_t box[4];
    for (unsigned i = 1; i < 5; i++)
        key = key << 16 | (strtoul(part[i], NULL, 10) & 0xffff);
    for (unsigned i = 0; i < 4; i++)
        box[i] = (uint32_t)CLAMP(strtol(part[6 + i], NULL, 10), 0, 1 << 20) / SCALE;
    const struct word *before =
        words->len ? &g_array_index(words, struct word, words->len - 1) : NULL;
    struct word word = { .text = g_utf8_make_valid(part[11], -1),
                         .x = where.x + MIN(box[0], where.width),
                         .y = where.y + MIN(box[1], where.height),
                         .width = MIN(box[2], where.width),
                         .height = MIN(box[3], where.height),
                         .line = before ? before->line + (key != *last) : 0,
                         .source = READING_OCR };
    g_array_append_val(words, word);
    *last = key;
}

/* The words (struct word; their text is the caller's, `line` counts from 0) in a part of a picture.
 * NULL with an error when tesseract is not installed or fails. */
static GArray *guess_words(const uint32_t *pixels, uint32_t width, struct rectangle where,
                           GError **error)
{
    struct tesseract t = { 0 };
    GArray *words = NULL;
    if (tesseract_open(&t, error)) {
        g_autofree unsigned char *grey = prepare(pixels, width, where);
        int columns = (int)where.width * SCALE;
        t.set_image(t.handle, grey, columns, (int)where.height * SCALE, 1, columns);
        t.set_resolution(t.handle, 96 * SCALE);
        char *table = t.tsv(t.handle, 0);
        if (table) {
            guint64 last = 0;
            g_auto(GStrv) lines = g_strsplit(table, "\n", -1);
            words = g_array_new(FALSE, FALSE, sizeof(struct word));
            for (unsigned i = 0; lines[i]; i++)
                take_line(words, lines[i], where, &last);
            t.delete_text(table);
        } else {
            hv_fail(error, HV_FAILED, "tesseract cannot read the screen");
        }
    }
    tesseract_close(&t);
    return words;
}

static bool is_empty(const uint32_t *pixels, uint32_t width, struct rectangle where)
{
    const uint32_t *first = pixels + (size_t)where.y * width + where.x;
    for (uint32_t y = 0; y < where.height; y++) {
        for (uint32_t x = 0; x < where.width; x++) {
            if (first[(size_t)y * width + x] != *first)
                return false;
        }
    }
    return true;
}

bool reading_guess(struct reading *reading, const uint32_t *pixels, uint32_t width, uint32_t height,
                   GError **error)
{
    struct rectangle where = reading->stale;
    if (!where.width || width != reading->width || height != reading->height ||
        reading->source == READING_CELLS || reading->source == READING_GLYPHS ||
        (!reading->guessed->len && is_empty(pixels, width, where)))
        return true;
    g_autoptr(GArray) found = guess_words(pixels, width, where, error);
    if (!found)
        return false;
    reading->stale = (struct rectangle){ 0 };
    /* What stood there before is gone. */
    for (unsigned i = reading->guessed->len; i-- > 0;) {
        const struct word *word = &g_array_index(reading->guessed, struct word, i);
        if (word->x < where.x + where.width && where.x < word->x + word->width &&
            word->y < where.y + where.height && where.y < word->y + word->height)
            g_array_remove_index(reading->guessed, i);
    }
    g_array_append_vals(reading->guessed, found->data, found->len);
    reading->source = reading->guessed->len ? READING_OCR : READING_NONE;
    reading_forget_text(reading);
    return true;
}
