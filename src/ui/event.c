/* What SDL's events do to the viewer; see viewer.h. */
#include "base/error.h"
#include "base/log.h"
#include "bus/input.h"
#include "ui/command.h"
#include "ui/viewer.h"

/* A key for the viewer's own dialog, menu or help. */
static void own_key(struct viewer *viewer, uint8_t usage)
{
    if (viewer->dialog.kind != DIALOG_NONE)
        dialog_key(viewer, usage);
    else if (viewer->panel.open != MENU_NONE)
        panel_key(viewer, usage);
    else
        viewer->help = false;
    viewer->dirty = true;
}

static void key_event(struct viewer *viewer, const SDL_KeyboardEvent *key)
{
    uint8_t usage;
    enum keyboard_change change = key->type == SDL_KEYUP ? KEYBOARD_UP
                                  : key->repeat          ? KEYBOARD_REPEAT
                                                         : KEYBOARD_DOWN;
    bool own =
        viewer->help || viewer->dialog.kind != DIALOG_NONE || viewer->panel.open != MENU_NONE;
    switch (keyboard_event(&viewer->keyboard, key->keysym.scancode, change, &usage)) {
    case KEYBOARD_TAPPED:
        viewer_grab(viewer, false);
        break;
    case KEYBOARD_COMMAND: {
        const struct command *command = command_of_letter(usage);
        if (command && viewer->dialog.kind == DIALOG_NONE) {
            viewer->dirty = true;
            command->run(viewer, command);
        }
        break;
    }
    case KEYBOARD_GUEST:
        if (own) {
            viewer->keyboard.down[usage] = false; /* the guest never sees it */
            own_key(viewer, usage);
        } else {
            viewer_key(viewer, usage, change != KEYBOARD_UP);
        }
        break;
    case KEYBOARD_NOTHING:
        break;
    }
}

static int to_pixels(const struct viewer *viewer, int points)
{
    return (int)(points * viewer->window.density);
}

/* The pointer's place in the picture is the guest's; with a button down also outside of it. */
static void point(struct viewer *viewer, int x, int y)
{
    struct box place = window_place(&viewer->window);
    bool inside =
        x >= place.x && x < place.x + place.width && y >= place.y && y < place.y + place.height;
    if (viewer->help || !(inside || viewer->mouse.buttons))
        return;
    mouse_point(&viewer->mouse, geometry_scale(x, place.x, place.width, POINTER_RANGE),
                geometry_scale(y, place.y, place.height, POINTER_RANGE));
}

static void motion_event(struct viewer *viewer, const SDL_MouseMotionEvent *motion)
{
    int x = to_pixels(viewer, motion->x), y = to_pixels(viewer, motion->y);
    if (viewer->selection.reading)
        selection_move(viewer, x, y);
    else if (viewer->mouse.grabbed)
        mouse_move(&viewer->mouse, motion->xrel, motion->yrel, 0);
    else if (viewer->dialog.kind != DIALOG_NONE)
        dialog_motion(viewer, x, y);
    else if ((viewer->mouse.buttons || !panel_motion(viewer, x, y)) && viewer_points(viewer))
        point(viewer, x, y);
}

/* Is it the drag that selects text? The host key is held, and the picture is under the pointer. */
static bool selects(struct viewer *viewer, const SDL_MouseButtonEvent *button)
{
    struct box place = window_place(&viewer->window);
    int x = to_pixels(viewer, button->x), y = to_pixels(viewer, button->y);
    return viewer->keyboard.host_held && button->type == SDL_MOUSEBUTTONDOWN &&
           button->button == SDL_BUTTON_LEFT && !viewer->mouse.grabbed && !viewer->mouse.buttons &&
           !viewer->help && viewer->dialog.kind == DIALOG_NONE && viewer->panel.open == MENU_NONE &&
           x >= place.x && x < place.x + place.width && y >= place.y && y < place.y + place.height;
}

static void button_event(struct viewer *viewer, const SDL_MouseButtonEvent *button)
{
    bool down = button->type == SDL_MOUSEBUTTONDOWN;
    int x = to_pixels(viewer, button->x), y = to_pixels(viewer, button->y);
    if (viewer->selection.reading && !down) {
        selection_end(viewer, true);
    } else if (selects(viewer, button)) {
        viewer->keyboard.host_used = true;
        selection_begin(viewer, x, y);
    } else if (viewer->mouse.grabbed || viewer->mouse.buttons) {
        mouse_button(&viewer->mouse, button->button, down, viewer->connection);
    } else if (!down) {
        return;
    } else if (viewer->dialog.kind != DIALOG_NONE) {
        dialog_click(viewer, x, y);
    } else if (viewer->help) {
        viewer->help = false;
        viewer->dirty = true;
    } else if (panel_click(viewer, x, y) || viewer_is_over(viewer)) {
        return;
    } else if (viewer_points(viewer)) {
        point(viewer, x, y);
        mouse_button(&viewer->mouse, button->button, down, viewer->connection);
    } else {
        viewer_grab(viewer, true);
    }
}

static void wheel_event(struct viewer *viewer, const SDL_MouseWheelEvent *wheel)
{
    int by = wheel->direction == SDL_MOUSEWHEEL_FLIPPED ? -wheel->y : wheel->y;
    if ((viewer->mouse.grabbed || viewer_points(viewer)) && by)
        mouse_move(&viewer->mouse, 0, 0, by);
}

static void window_event(struct viewer *viewer, const SDL_WindowEvent *event)
{
    switch (event->event) {
    case SDL_WINDOWEVENT_CLOSE:
        viewer_show_dialog(viewer, DIALOG_CLOSE);
        break;
    case SDL_WINDOWEVENT_FOCUS_LOST:
        viewer_take_input(viewer);
        break;
    case SDL_WINDOWEVENT_SIZE_CHANGED:
    case SDL_WINDOWEVENT_DISPLAY_CHANGED:
        window_resized(&viewer->window);
        draw_set_density(viewer->draw, viewer->window.density);
        viewer->dirty = true;
        break;
    case SDL_WINDOWEVENT_LEAVE:
        viewer->dirty |= viewer->panel.touched || viewer->panel.hover != MENU_NONE;
        viewer->panel.touched = false;
        viewer->panel.hover = MENU_NONE;
        break;
    case SDL_WINDOWEVENT_EXPOSED:
    case SDL_WINDOWEVENT_SHOWN:
        viewer->dirty = true;
        break;
    default:
        break;
    }
}

/* The graphics card lost our textures. */
static void restore_textures(struct viewer *viewer)
{
    const struct model *model = &viewer->update.model;
    draw_set_density(viewer->draw, 0.1); /* any other: forgets its textures */
    draw_set_density(viewer->draw, viewer->window.density);
    if (viewer->update.pixels && model->width &&
        window_mode(&viewer->window, model->width, model->height))
        window_upload(&viewer->window, viewer->update.pixels,
                      (struct rectangle){ 0, 0, model->width, model->height });
    viewer->dirty = true;
}

void viewer_event(struct viewer *viewer, const SDL_Event *event)
{
    if (event->type == viewer->event_type) {
        viewer_take_news(viewer);
        return;
    }
    switch (event->type) {
    case SDL_KEYDOWN:
    case SDL_KEYUP:
        key_event(viewer, &event->key);
        break;
    case SDL_MOUSEMOTION:
        motion_event(viewer, &event->motion);
        break;
    case SDL_MOUSEBUTTONDOWN:
    case SDL_MOUSEBUTTONUP:
        button_event(viewer, &event->button);
        break;
    case SDL_MOUSEWHEEL:
        wheel_event(viewer, &event->wheel);
        break;
    case SDL_WINDOWEVENT:
        window_event(viewer, &event->window);
        break;
    case SDL_RENDER_DEVICE_RESET:
    case SDL_RENDER_TARGETS_RESET:
        restore_textures(viewer);
        break;
    case SDL_QUIT: /* the session or its display ends: the machine goes on */
        log_error(viewer->name, "the display went away; the machine goes on without a window");
        viewer_leave(viewer, HV_FAILED);
        break;
    default:
        break;
    }
}
