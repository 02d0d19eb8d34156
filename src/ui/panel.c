/* The menu strip; see panel.h. All boxes are computed anew from the window's size whenever they are
 * needed, so that drawing and clicking cannot disagree. */
#include "ui/panel.h"

#include "bus/input.h"
#include "ui/viewer.h"

enum { PADDING = 10, ROW = 26, EDGE = 4 }; /* points */

struct lamp_info {
    const char *label;
    uint32_t bit; /* enum lamp */
};
static const struct lamp_info lamp_infos[] = { { "Num", LAMP_NUM },
                                               { "Caps", LAMP_CAPS },
                                               { "Scroll", LAMP_SCROLL } };

static int px(const struct viewer *viewer, int points)
{
    return draw_px(viewer->draw, points);
}

bool panel_visible(const struct viewer *viewer)
{
    const struct panel *panel = &viewer->panel;
    return !viewer->window.full_screen || panel->open != MENU_NONE || viewer->message ||
           (panel->touched && !viewer->mouse.grabbed);
}

const char *panel_state_word(const struct viewer *viewer)
{
    static const char *const words[] = { [STATE_RUNNING] = "running",
                                         [STATE_PAUSED] = "paused",
                                         [STATE_DISK_FULL] = "disk full",
                                         [STATE_CRASHED] = "crashed",
                                         [STATE_OFF] = "off" };
    if (viewer->update.gone && viewer->update.model.state != STATE_CRASHED)
        return "gone";
    return viewer->update.model.greeted ? words[viewer->update.model.state] : "starting";
}

/* --- where things are ------------------------------------------------------------------------ */

static struct box strip_box(const struct viewer *viewer)
{
    return (struct box){ 0, 0, viewer->window.room.width, px(viewer, STRIP_POINTS) };
}

static struct box name_box(const struct viewer *viewer, enum menu menu)
{
    struct box box = { px(viewer, EDGE), 0, 0, px(viewer, STRIP_POINTS) };
    for (enum menu m = 0; m <= menu && m < MENUS; m++) {
        box.x += box.width;
        box.width = draw_text_width(viewer->draw, FONT_TEXT, menu_names[m]);
        box.width = MAX(box.width + 2 * px(viewer, PADDING), px(viewer, 36));
    }
    return box;
}

static struct box menu_box(const struct viewer *viewer, enum menu menu)
{
    struct box box = name_box(viewer, menu);
    int label = 0, key = 0, rows = 0;
    for (unsigned i = 0; i < command_count; i++) {
        if (commands[i].menu != menu)
            continue;
        rows++;
        label = MAX(label,
                    draw_text_width(viewer->draw, FONT_TEXT, command_label(&commands[i], viewer)));
        if (commands[i].letter) {
            g_autofree char *text =
                g_strdup_printf("%s+%s", keyboard_host_name(&viewer->keyboard), commands[i].key);
            key = MAX(key, draw_text_width(viewer->draw, FONT_TEXT, text));
        }
    }
    box.y = px(viewer, STRIP_POINTS);
    box.width = MAX(label + key + px(viewer, 5 * PADDING + 14), px(viewer, 160));
    box.height = rows * px(viewer, ROW) + 2 * px(viewer, EDGE);
    return box;
}

/* The row of commands[index] in its menu. A window too low for the menu shows it scrolled so that
 * the chosen row is inside. */
static struct box item_box(const struct viewer *viewer, unsigned index)
{
    enum menu menu = commands[index].menu;
    struct box box = menu_box(viewer, menu);
    int row = 0, chosen = 0, height = px(viewer, ROW);
    for (unsigned i = 0; i < command_count; i++) {
        row += i < index && commands[i].menu == menu;
        chosen += (int)i < viewer->panel.item && commands[i].menu == menu;
    }
    int bottom = viewer->window.room.y + viewer->window.room.height;
    int over = MAX(box.y + 2 * px(viewer, EDGE) + (chosen + 1) * height - bottom, 0);
    box.y += px(viewer, EDGE) + row * height - over;
    box.height = height;
    return box;
}

static int item_at(const struct viewer *viewer, int x, int y)
{
    for (unsigned i = 0; i < command_count; i++) {
        if (commands[i].menu == viewer->panel.open && box_has(item_box(viewer, i), x, y) &&
            y >= px(viewer, STRIP_POINTS))
            return (int)i;
    }
    return -1;
}

/* --- drawing --------------------------------------------------------------------------------- */

static void draw_item(struct viewer *viewer, unsigned index)
{
    const struct command *command = &commands[index];
    struct box row = item_box(viewer, index);
    int edge = px(viewer, EDGE), padding = px(viewer, PADDING);
    bool chosen = viewer->panel.item == (int)index;
    if (row.y < px(viewer, STRIP_POINTS))
        return;
    if (chosen)
        draw_box(viewer->draw,
                 (struct box){ row.x + edge, row.y, row.width - 2 * edge, row.height },
                 COLOUR_ACCENT);
    if (command->is_on && !command->is_on_label && command->is_on(viewer)) {
        int mark = px(viewer, 6);
        draw_box(viewer->draw,
                 (struct box){ row.x + padding + 2, row.y + (row.height - mark) / 2, mark, mark },
                 chosen ? COLOUR_TEXT : COLOUR_LAMP);
    }
    draw_text(viewer->draw, FONT_TEXT, COLOUR_TEXT, command_label(command, viewer),
              row.x + padding + px(viewer, 14), row.y, row.height);
    if (command->letter) {
        g_autofree char *text =
            g_strdup_printf("%s+%s", keyboard_host_name(&viewer->keyboard), command->key);
        int width = draw_text_width(viewer->draw, FONT_TEXT, text);
        draw_text(viewer->draw, FONT_TEXT, chosen ? COLOUR_TEXT : COLOUR_FAINT, text,
                  row.x + row.width - padding - width, row.y, row.height);
    }
}

static void draw_menu(struct viewer *viewer)
{
    if (viewer->panel.open == MENU_NONE)
        return;
    draw_card(viewer->draw, menu_box(viewer, viewer->panel.open));
    for (unsigned i = 0; i < command_count; i++) {
        if (commands[i].menu == viewer->panel.open)
            draw_item(viewer, i);
    }
}

/* One lamp, its right end at x. Returns where it begins. */
static int draw_lamp(struct viewer *viewer, const char *label, bool on, enum draw_colour lit, int x)
{
    int height = px(viewer, STRIP_POINTS), size = px(viewer, 7);
    int width = draw_text_width(viewer->draw, FONT_TEXT, label);
    x -= width;
    draw_text(viewer->draw, FONT_TEXT, on ? COLOUR_TEXT : COLOUR_FAINT, label, x, 0, height);
    x -= size + px(viewer, 5);
    draw_box(viewer->draw, (struct box){ x, (height - size) / 2, size, size },
             on ? lit : COLOUR_OFF);
    return x - px(viewer, 12);
}

/* Returns where the free middle ends. */
static int draw_lamps(struct viewer *viewer)
{
    int x = viewer->window.room.width - px(viewer, PADDING);
    for (size_t i = G_N_ELEMENTS(lamp_infos); i-- > 0;)
        x = draw_lamp(viewer, lamp_infos[i].label, viewer->update.model.lamps & lamp_infos[i].bit,
                      COLOUR_LAMP, x);
    return draw_lamp(viewer, "Disk", viewer->disk_end != 0, COLOUR_DISK, x);
}

static enum draw_colour state_colour(const struct viewer *viewer)
{
    if (viewer_is_over(viewer))
        return COLOUR_DANGER;
    if (!viewer->update.model.greeted)
        return COLOUR_OFF;
    return viewer->update.model.state == STATE_RUNNING ? COLOUR_GOOD : COLOUR_DISK;
}

static char *mouse_hint(const struct viewer *viewer)
{
    if (viewer->update.model.pasting)
        return g_strdup("typing the clipboard...");
    if (viewer->mouse.grabbed)
        return g_strdup_printf("%s frees the mouse", keyboard_host_name(&viewer->keyboard));
    return g_strdup(viewer_points(viewer) ? "" : "click to use the mouse");
}

/* Name, state and the hint, as much as fits between x and end. Who cannot get his mouse back needs
 * the hint more than the name, which the title bar has too. */
static void draw_middle(struct viewer *viewer, int x, int end)
{
    int height = px(viewer, STRIP_POINTS), padding = px(viewer, PADDING), mark = px(viewer, 7);
    int gap = px(viewer, 6), at = x + padding;
    const char *word = panel_state_word(viewer);
    g_autofree char *hint = mouse_hint(viewer);
    int hint_width = draw_text_width(viewer->draw, FONT_TEXT, hint);
    int width = mark + 2 * gap + draw_text_width(viewer->draw, FONT_TEXT, viewer->name) +
                draw_text_width(viewer->draw, FONT_TEXT, word);
    bool both = at + width + 2 * padding + hint_width <= end;
    SDL_RenderSetClipRect(viewer->window.renderer, &(SDL_Rect){ x, 0, MAX(end - x, 1), height });
    if (both || !viewer->mouse.grabbed) {
        draw_box(viewer->draw, (struct box){ at, (height - mark) / 2, mark, mark },
                 state_colour(viewer));
        at += mark + gap;
        at += draw_text(viewer->draw, FONT_TEXT, COLOUR_TEXT, viewer->name, at, 0, height) + gap;
        draw_text(viewer->draw, FONT_TEXT, COLOUR_FAINT, word, at, 0, height);
    }
    if (both || viewer->mouse.grabbed)
        draw_text(viewer->draw, FONT_TEXT, viewer->mouse.grabbed ? COLOUR_DISK : COLOUR_FAINT, hint,
                  end - hint_width - padding, 0, height);
    SDL_RenderSetClipRect(viewer->window.renderer, NULL);
}

/* The message of the moment, over everything right of the menus. */
static void draw_message(struct viewer *viewer, int x)
{
    int width = viewer->window.room.width - x - 2 * px(viewer, PADDING);
    g_autofree char *text = draw_shorten(viewer->draw, FONT_TEXT, viewer->message, width);
    draw_text(viewer->draw, FONT_TEXT, COLOUR_DISK, text, x + px(viewer, PADDING), 0,
              px(viewer, STRIP_POINTS));
}

void panel_draw(struct viewer *viewer)
{
    if (!panel_visible(viewer))
        return;
    struct box strip = strip_box(viewer);
    int line = MAX(px(viewer, 1), 1);
    draw_box(viewer->draw, strip, COLOUR_STRIP);
    draw_box(viewer->draw, (struct box){ 0, strip.height - line, strip.width, line }, COLOUR_EDGE);
    for (enum menu menu = 0; menu < MENUS; menu++) {
        struct box box = name_box(viewer, menu);
        if (menu == viewer->panel.open || menu == viewer->panel.hover)
            draw_box(viewer->draw, (struct box){ box.x, 0, box.width, box.height - line },
                     COLOUR_HOVER);
        draw_text(viewer->draw, FONT_TEXT, COLOUR_TEXT, menu_names[menu],
                  box.x + px(viewer, PADDING), 0, box.height);
    }
    struct box last = name_box(viewer, MENUS - 1);
    if (viewer->message)
        draw_message(viewer, last.x + last.width);
    else
        draw_middle(viewer, last.x + last.width, draw_lamps(viewer));
    draw_menu(viewer);
}

/* --- the card of a machine that does not run ------------------------------------------------- */

static const char *state_title(const struct viewer *viewer)
{
    static const char *const titles[] = { [STATE_RUNNING] = NULL,
                                          [STATE_PAUSED] = "Paused",
                                          [STATE_DISK_FULL] = "The host's disk is full",
                                          [STATE_CRASHED] = "The guest crashed",
                                          [STATE_OFF] = NULL };
    if (viewer->update.gone && viewer->update.model.state != STATE_CRASHED)
        return "The machine's program ended";
    return titles[viewer->update.model.state];
}

static char *state_hint(const struct viewer *viewer)
{
    const char *host = keyboard_host_name(&viewer->keyboard);
    if (viewer->update.gone)
        return g_strdup("Close the window to finish.");
    if (viewer->update.model.state == STATE_CRASHED)
        return g_strdup_printf("%s+R resets it, closing the window ends it.", host);
    if (viewer->update.model.state == STATE_DISK_FULL)
        return g_strdup_printf("Nothing is lost. Make space; then it goes on (%s+P).", host);
    return g_strdup_printf("%s+P resumes.", host);
}

void panel_draw_state(struct viewer *viewer)
{
    const char *title = state_title(viewer);
    if (!title)
        return;
    struct box room = viewer->window.room;
    draw_box(viewer->draw, room, COLOUR_DIM);
    const char *reason = viewer->update.gone && viewer->update.complaint
                             ? viewer->update.complaint
                             : viewer->update.model.reason;
    g_autofree char *hint = state_hint(viewer);
    int width = MIN(room.width - px(viewer, 40), px(viewer, 460));
    int x = room.x + (room.width - width) / 2;
    int y = room.y + room.height / 2 - px(viewer, 50);
    y += draw_paragraph(viewer->draw, FONT_TITLE, COLOUR_TEXT, title, x, y, width);
    y += px(viewer, 8);
    if (*reason)
        y += draw_paragraph(viewer->draw, FONT_TEXT, COLOUR_TEXT, reason, x, y, width) +
             px(viewer, 8);
    draw_paragraph(viewer->draw, FONT_TEXT, COLOUR_FAINT, hint, x, y, width);
}

/* --- events ---------------------------------------------------------------------------------- */

void panel_open_menu(struct viewer *viewer, enum menu menu)
{
    viewer->panel.open = menu;
    viewer->panel.item = -1;
    viewer->dirty = true;
    if (menu != MENU_NONE)
        viewer_take_input(viewer);
}

static enum menu name_at(const struct viewer *viewer, int x, int y)
{
    for (enum menu menu = 0; menu < MENUS && panel_visible(viewer); menu++) {
        if (box_has(name_box(viewer, menu), x, y))
            return menu;
    }
    return MENU_NONE;
}

bool panel_motion(struct viewer *viewer, int x, int y)
{
    struct panel before = viewer->panel, *panel = &viewer->panel;
    panel->touched = y < px(viewer, panel->touched ? STRIP_POINTS : 3);
    panel->hover = name_at(viewer, x, y);
    if (panel->open != MENU_NONE) {
        if (panel->hover != MENU_NONE && panel->hover != panel->open)
            panel_open_menu(viewer, panel->hover);
        panel->item = item_at(viewer, x, y);
    }
    viewer->dirty |= before.hover != panel->hover || before.item != panel->item ||
                     before.touched != panel->touched;
    return panel->open != MENU_NONE || (panel_visible(viewer) && box_has(strip_box(viewer), x, y));
}

bool panel_click(struct viewer *viewer, int x, int y)
{
    enum menu open = viewer->panel.open, name = name_at(viewer, x, y);
    int item = item_at(viewer, x, y);
    if (name != MENU_NONE) {
        panel_open_menu(viewer, name == open ? MENU_NONE : name);
        return true;
    }
    if (open != MENU_NONE) {
        panel_open_menu(viewer, MENU_NONE);
        if (item >= 0)
            commands[item].run(viewer, &commands[item]);
        return true;
    }
    return panel_visible(viewer) && box_has(strip_box(viewer), x, y);
}

/* The next or the previous item of the open menu, round. */
static int step(const struct panel *panel, int by)
{
    int count = (int)command_count;
    int item = panel->item >= 0 ? panel->item : by > 0 ? count - 1 : 0;
    do
        item = (item + by + count) % count;
    while (commands[item].menu != panel->open);
    return item;
}

void panel_key(struct viewer *viewer, uint8_t usage)
{
    struct panel *panel = &viewer->panel;
    int item = panel->item;
    viewer->dirty = true;
    switch (usage) {
    case KEY_UP:
        panel->item = step(panel, -1);
        break;
    case KEY_DOWN:
        panel->item = step(panel, 1);
        break;
    case KEY_LEFT:
        panel_open_menu(viewer, (panel->open + MENUS - 1) % MENUS);
        break;
    case KEY_RIGHT:
        panel_open_menu(viewer, (panel->open + 1) % MENUS);
        break;
    case KEY_ENTER:
    case KEY_SPACE:
        panel_open_menu(viewer, MENU_NONE);
        if (item >= 0)
            commands[item].run(viewer, &commands[item]);
        break;
    case KEY_ESCAPE:
        panel_open_menu(viewer, MENU_NONE);
        break;
    default:
        break;
    }
}
