/* The help overlay: the shortcuts of the table of commands, on a card. */
#include "ui/viewer.h"

enum { LINE = 21, MARGIN = 18, KEY_COLUMN = 36 }; /* points */

static unsigned line_count(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < command_count; i++)
        count += commands[i].letter != 0;
    return count;
}

static void draw_key(struct viewer *viewer, const char *key, int x, int y, int line)
{
    struct box box = { x, y + draw_px(viewer->draw, 1), draw_px(viewer->draw, 22),
                       line - draw_px(viewer->draw, 2) };
    draw_box(viewer->draw, box, COLOUR_HOVER);
    draw_frame(viewer->draw, box, COLOUR_EDGE);
    int width = draw_text_width(viewer->draw, FONT_TEXT, key);
    draw_text(viewer->draw, FONT_TEXT, COLOUR_TEXT, key, x + (box.width - width) / 2, y, line);
}

void help_draw(struct viewer *viewer)
{
    if (!viewer->help)
        return;
    const char *host = keyboard_host_name(&viewer->keyboard);
    g_autofree char *title = g_strdup_printf("Hold %s and press", host);
    g_autofree char *foot =
        g_strdup_printf("%s alone frees the mouse.  Any key closes this help.", host);
    int line = draw_px(viewer->draw, LINE), margin = draw_px(viewer->draw, MARGIN);
    int head = draw_text_height(viewer->draw, FONT_TITLE) + draw_px(viewer->draw, 8);
    int foot_width = draw_text_width(viewer->draw, FONT_TEXT, foot);
    struct box room = viewer->window.room;
    struct box card = { 0, 0, MAX(foot_width, draw_px(viewer->draw, 300)) + 2 * margin,
                        2 * margin + head + (int)(line_count() + 2) * line +
                            draw_px(viewer->draw, 8) };
    card.x = room.x + (room.width - card.width) / 2;
    card.y = room.y + MAX((room.height - card.height) / 2, 0);
    draw_box(viewer->draw, room, COLOUR_DIM);
    draw_card(viewer->draw, card);

    int x = card.x + margin, y = card.y + margin - draw_px(viewer->draw, 4);
    draw_text(viewer->draw, FONT_TITLE, COLOUR_TEXT, title, x, y, head - draw_px(viewer->draw, 8));
    y += head;
    for (unsigned i = 0; i < command_count; i++) {
        if (!commands[i].letter)
            continue;
        draw_key(viewer, commands[i].key, x, y, line);
        draw_text(viewer->draw, FONT_TEXT, COLOUR_TEXT, command_label(&commands[i], viewer),
                  x + draw_px(viewer->draw, KEY_COLUMN), y, line);
        y += line;
    }
    g_autofree char *drag = g_strdup_printf("Drag with %s held: copies the guest's text.", host);
    draw_text(viewer->draw, FONT_TEXT, COLOUR_TEXT, drag, x, y + draw_px(viewer->draw, 8), line);
    y += line;
    draw_text(viewer->draw, FONT_TEXT, COLOUR_FAINT, foot, x, y + draw_px(viewer->draw, 8), line);
}
