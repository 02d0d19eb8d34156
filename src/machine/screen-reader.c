/* The reader of the screen; see screen-reader.h. */
#include "machine/screen-reader.h"

#include "base/cp437.h"
#include "reading/reading.h"

#include <string.h>

struct screen_reader {
    struct onlooker onlooker; /* the display's plug */
    struct machine *machine;
    struct display *display;
    void (*changed)(void *opaque);
    void *opaque;

    GMutex lock; /* protects the following; a leaf */
    GCond read;
    struct screen_says says;
    unsigned reads; /* how often all of a picture was read */
    bool watched;
    bool due;     /* `changed` is to be called whether or not the text changes */
    bool telling; /* and is about to be */

    /* the display's thread's */
    struct reading *reading;
    struct screen_text cells;
};

static gboolean tell(void *data)
{
    struct screen_reader *r = data;
    g_mutex_lock(&r->lock);
    r->telling = false;
    bool watched = r->watched;
    g_mutex_unlock(&r->lock);
    if (watched)
        r->changed(r->opaque);
    return G_SOURCE_REMOVE;
}

/* On the display's thread. */
static void read_cells(struct screen_reader *r, const struct picture *picture)
{
    uint32_t count = r->cells.columns * r->cells.rows;
    g_autofree gunichar *codes = g_new(gunichar, count);
    for (uint32_t i = 0; i < count; i++)
        codes[i] = cp437_character(r->cells.cell[i].code);
    reading_set_cells(r->reading, codes, r->cells.columns, r->cells.rows, picture->width,
                      picture->height);
}

static void seen(struct onlooker *onlooker, const struct picture *picture, struct rectangle changed,
                 bool first)
{
    struct screen_reader *r = (struct screen_reader *)onlooker;
    struct device *dev = machine_display(r->machine);
    device_lock(dev);
    dev->class->screen->text(dev, &r->cells);
    device_unlock(dev);
    if (r->cells.rows)
        read_cells(r, picture);
    else if (picture->width)
        reading_update(r->reading, picture->pixels, picture->width, picture->height, changed);

    g_mutex_lock(&r->lock);
    const char *text = reading_text(r->reading);
    bool other = strcmp(text, r->says.text) != 0;
    if (other) {
        g_free(r->says.text);
        r->says.text = g_strdup(text);
    }
    reading_size(r->reading, &r->says.columns, &r->says.rows);
    r->reads += first;
    if (r->watched && !r->telling && (other || r->due)) {
        r->due = false;
        r->telling = true;
        g_idle_add_full(G_PRIORITY_DEFAULT, tell, r, NULL);
    }
    g_cond_signal(&r->read);
    g_mutex_unlock(&r->lock);
}

struct screen_reader *screen_reader_new(struct machine *machine, struct display *display,
                                        void (*changed)(void *opaque), void *opaque)
{
    struct screen_reader *r = g_new0(struct screen_reader, 1);
    r->onlooker.seen = seen;
    r->machine = machine;
    r->display = display;
    r->changed = changed;
    r->opaque = opaque;
    r->says.text = g_strdup("");
    r->reading = reading_new();
    g_mutex_init(&r->lock);
    g_cond_init(&r->read);
    display_set_onlooker(display, &r->onlooker);
    return r;
}

void screen_reader_watch(struct screen_reader *r, bool on)
{
    g_mutex_lock(&r->lock);
    bool was = r->watched;
    r->watched = r->due = on;
    g_mutex_unlock(&r->lock);
    if (on || was)
        display_look_on(r->display, on);
}

struct screen_says screen_reader_last(struct screen_reader *r)
{
    g_mutex_lock(&r->lock);
    struct screen_says says = r->says;
    says.text = g_strdup(says.text);
    g_mutex_unlock(&r->lock);
    return says;
}

bool screen_reader_read(struct screen_reader *r, struct screen_says *says)
{
    gint64 end = g_get_monotonic_time() + G_USEC_PER_SEC;
    g_mutex_lock(&r->lock);
    unsigned before = r->reads;
    g_mutex_unlock(&r->lock);
    display_look_on(r->display, true);
    g_mutex_lock(&r->lock);
    while (r->reads == before && g_cond_wait_until(&r->read, &r->lock, end))
        ;
    bool read = r->reads != before, watched = r->watched;
    g_mutex_unlock(&r->lock);
    if (!watched)
        display_look_on(r->display, false);
    *says = screen_reader_last(r);
    return read;
}
