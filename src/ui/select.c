/* Selecting the guest's text; see select.h. */
#include "ui/select.h"

#include "reading/reading.h"
#include "ui/viewer.h"

/* The pixel of the picture at a place in the window, the nearest one outside of it. */
static void to_picture(const struct viewer *viewer, int x, int y, uint32_t *at_x, uint32_t *at_y)
{
    struct box place = window_place(&viewer->window);
    *at_x = geometry_scale(x, place.x, place.width, MAX(viewer->window.width, 1) - 1);
    *at_y = geometry_scale(y, place.y, place.height, MAX(viewer->window.height, 1) - 1);
}

void selection_begin(struct viewer *viewer, int x, int y)
{
    struct selection *selection = &viewer->selection;
    const struct model *model = &viewer->update.model;
    uint32_t at_x, at_y;
    selection_end(viewer, false);
    if (!viewer->update.pixels || !model->width)
        return;
    selection->reading = reading_new();
    reading_update(selection->reading, viewer->update.pixels, model->width, model->height,
                   (struct rectangle){ 0, 0, model->width, model->height });
    to_picture(viewer, x, y, &at_x, &at_y);
    if (!reading_cell_at(selection->reading, at_x, at_y, &selection->from[0],
                         &selection->from[1])) {
        selection_end(viewer, false);
        viewer_say(viewer, "The guest shows no text in a font that is known");
        return;
    }
    selection->to[0] = selection->from[0];
    selection->to[1] = selection->from[1];
    viewer->dirty = true;
}

void selection_move(struct viewer *viewer, int x, int y)
{
    struct selection *selection = &viewer->selection;
    uint32_t at_x, at_y;
    if (!selection->reading)
        return;
    to_picture(viewer, x, y, &at_x, &at_y);
    reading_cell_at(selection->reading, at_x, at_y, &selection->to[0], &selection->to[1]);
    viewer->dirty = true;
}

void selection_end(struct viewer *viewer, bool copy)
{
    struct selection *selection = &viewer->selection;
    if (!selection->reading)
        return;
    if (copy) {
        g_autofree char *text =
            reading_between(selection->reading, selection->from[0], selection->from[1],
                            selection->to[0], selection->to[1]);
        if (!*text)
            viewer_say(viewer, "There is no text in the selection");
        else if (SDL_SetClipboardText(text) < 0)
            viewer_say(viewer, "The text cannot be copied: %s", SDL_GetError());
        else
            viewer_say(viewer, "Copied: %ld characters", g_utf8_strlen(text, -1));
    }
    g_clear_pointer(&selection->reading, reading_free);
    viewer->dirty = true;
}

/* One row's cells from first to last, over the picture in the window. */
static void draw_row(struct viewer *viewer, uint32_t row, uint32_t first, uint32_t last)
{
    struct rectangle a = reading_cell_box(viewer->selection.reading, first, row);
    struct rectangle b = reading_cell_box(viewer->selection.reading, last, row);
    struct box place = window_place(&viewer->window);
    double x = (double)place.width / MAX(viewer->window.width, 1);
    double y = (double)place.height / MAX(viewer->window.height, 1);
    int left = place.x + (int)(a.x * x), right = place.x + (int)((b.x + b.width) * x);
    int top = place.y + (int)(a.y * y), bottom = place.y + (int)((a.y + a.height) * y);
    draw_box(viewer->draw, (struct box){ left, top, right - left, bottom - top }, COLOUR_SELECTION);
}

void selection_draw(struct viewer *viewer)
{
    const struct selection *selection = &viewer->selection;
    uint32_t columns, rows;
    if (!selection->reading)
        return;
    reading_size(selection->reading, &columns, &rows);
    bool down = selection->from[1] < selection->to[1] ||
                (selection->from[1] == selection->to[1] && selection->from[0] <= selection->to[0]);
    const uint32_t *first = down ? selection->from : selection->to;
    const uint32_t *last = down ? selection->to : selection->from;
    for (uint32_t row = first[1]; row <= last[1]; row++)
        draw_row(viewer, row, row == first[1] ? first[0] : 0,
                 row == last[1] ? last[0] : columns - 1);
}
