/* Questions; see dialog.h. */
#include "ui/dialog.h"

#include "ui/viewer.h"

enum { BUTTONS_MAX = 4, CARD_WIDTH = 400, BUTTON_HEIGHT = 34, GAP = 8, MARGIN = 20 }; /* points */

struct button {
    const char *label;
    bool danger;
    void (*press)(struct viewer *viewer);
};

struct question {
    const char *title, *text;
    struct button buttons[BUTTONS_MAX]; /* the last one is what Escape presses */
};

static void shut_down(struct viewer *viewer)
{
    viewer_action(viewer, ACTION_SHUT_DOWN);
    viewer_say(viewer, "The power button was pressed; the window closes when the guest is off");
}

static void power_off(struct viewer *viewer)
{
    viewer_action(viewer, ACTION_POWER_OFF);
}

static void reset(struct viewer *viewer)
{
    viewer_action(viewer, ACTION_RESET);
}

static void keep_running(struct viewer *viewer)
{
    viewer_leave(viewer, 0);
}

static void cancel(struct viewer *viewer)
{
    (void)viewer;
}

static const struct question questions[] = {
    [DIALOG_CLOSE] = { "Close this machine?",
                       "In the background it goes on; 'hv open' shows it again.",
                       { { "Shut down", false, shut_down },
                         { "Power off (unsaved work is lost)", true, power_off },
                         { "Keep running in the background", false, keep_running },
                         { "Cancel", false, cancel } } },
    [DIALOG_RESET] = { "Reset this machine?",
                       "What the guest has not saved is lost.",
                       { { "Reset", true, reset }, { "Cancel", false, cancel } } },
    [DIALOG_POWER_OFF] = { "Power off this machine?",
                           "What the guest has not saved is lost.",
                           { { "Power off", true, power_off }, { "Cancel", false, cancel } } },
};

static unsigned button_count(const struct question *question)
{
    unsigned count = 0;
    while (count < BUTTONS_MAX && question->buttons[count].label)
        count++;
    return count;
}

static struct box card_box(const struct viewer *viewer)
{
    const struct question *question = &questions[viewer->dialog.kind];
    int line = draw_text_height(viewer->draw, FONT_TEXT);
    int height = 2 * draw_px(viewer->draw, MARGIN) + draw_text_height(viewer->draw, FONT_TITLE) +
                 draw_px(viewer->draw, GAP) + 2 * line +
                 (int)button_count(question) * draw_px(viewer->draw, BUTTON_HEIGHT + GAP);
    struct box room = viewer->window.room;
    int width = MIN(draw_px(viewer->draw, CARD_WIDTH), room.width);
    return (struct box){ room.x + (room.width - width) / 2,
                         room.y + MAX((room.height - height) / 2, 0), width, height };
}

static struct box button_box(const struct viewer *viewer, unsigned index)
{
    unsigned count = button_count(&questions[viewer->dialog.kind]);
    struct box card = card_box(viewer);
    int margin = draw_px(viewer->draw, MARGIN), step = draw_px(viewer->draw, BUTTON_HEIGHT + GAP);
    return (struct box){ card.x + margin,
                         card.y + card.height - margin + draw_px(viewer->draw, GAP) -
                             (int)(count - index) * step,
                         card.width - 2 * margin, draw_px(viewer->draw, BUTTON_HEIGHT) };
}

static int button_at(const struct viewer *viewer, int x, int y)
{
    unsigned count = button_count(&questions[viewer->dialog.kind]);
    for (unsigned i = 0; i < count; i++) {
        if (box_has(button_box(viewer, i), x, y))
            return (int)i;
    }
    return -1;
}

void dialog_draw(struct viewer *viewer)
{
    if (viewer->dialog.kind == DIALOG_NONE)
        return;
    const struct question *question = &questions[viewer->dialog.kind];
    struct box card = card_box(viewer);
    int margin = draw_px(viewer->draw, MARGIN), width = card.width - 2 * margin;
    draw_box(viewer->draw, viewer->window.room, COLOUR_DIM);
    draw_card(viewer->draw, card);
    int y = card.y + margin - draw_px(viewer->draw, GAP / 2);
    draw_paragraph(viewer->draw, FONT_TITLE, COLOUR_TEXT, question->title, card.x + margin, y,
                   width);
    y += draw_text_height(viewer->draw, FONT_TITLE) + draw_px(viewer->draw, GAP);
    draw_paragraph(viewer->draw, FONT_TEXT, COLOUR_FAINT, question->text, card.x + margin, y,
                   width);
    for (unsigned i = 0; i < button_count(question); i++) {
        const struct button *button = &question->buttons[i];
        struct box box = button_box(viewer, i);
        bool chosen = i == viewer->dialog.chosen;
        enum draw_colour colour = button->danger ? COLOUR_DANGER : COLOUR_ACCENT;
        draw_box(viewer->draw, box, chosen ? colour : COLOUR_HOVER);
        draw_frame(viewer->draw, box, COLOUR_EDGE);
        int text = draw_text_width(viewer->draw, FONT_TEXT, button->label);
        draw_text(viewer->draw, FONT_TEXT, COLOUR_TEXT, button->label,
                  box.x + (box.width - text) / 2, box.y, box.height);
    }
}

static void press(struct viewer *viewer, unsigned index)
{
    const struct button *button = &questions[viewer->dialog.kind].buttons[index];
    viewer->dialog.kind = DIALOG_NONE;
    viewer->dirty = true;
    button->press(viewer);
}

void dialog_motion(struct viewer *viewer, int x, int y)
{
    int at = button_at(viewer, x, y);
    if (at >= 0 && (unsigned)at != viewer->dialog.chosen) {
        viewer->dialog.chosen = (unsigned)at;
        viewer->dirty = true;
    }
}

void dialog_click(struct viewer *viewer, int x, int y)
{
    int at = button_at(viewer, x, y);
    if (at >= 0)
        press(viewer, (unsigned)at);
}

void dialog_key(struct viewer *viewer, uint8_t usage)
{
    unsigned count = button_count(&questions[viewer->dialog.kind]);
    struct dialog *dialog = &viewer->dialog;
    if (!count)
        return;
    viewer->dirty = true;
    if (usage == KEY_ESCAPE)
        press(viewer, count - 1);
    else if (usage == KEY_ENTER || usage == KEY_SPACE)
        press(viewer, dialog->chosen);
    else if (usage == KEY_DOWN || usage == KEY_RIGHT || usage == KEY_TAB)
        dialog->chosen = (dialog->chosen + 1) % count;
    else if (usage == KEY_UP || usage == KEY_LEFT)
        dialog->chosen = (dialog->chosen + count - 1) % count;
}
