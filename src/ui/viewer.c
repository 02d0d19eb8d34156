/* The viewer; see viewer.h. */
#include "ui/viewer.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"

enum { DISK_LAMP_US = 150 * 1000, MESSAGE_US = 5 * 1000 * 1000 };

/* --- what commands do ------------------------------------------------------------------------ */

bool viewer_is_over(const struct viewer *viewer)
{
    return viewer->update.gone || viewer->update.model.state == STATE_CRASHED;
}

void viewer_key(struct viewer *viewer, uint8_t usage, bool down)
{
    struct display_message message = { .kind = DISPLAY_KEY, .a = usage, .b = down };
    mouse_flush(&viewer->mouse, viewer->connection);
    connection_send(viewer->connection, &message);
}

static void release_key(void *data, uint8_t usage)
{
    viewer_key(data, usage, false);
}

static void release_keys(struct viewer *viewer)
{
    keyboard_release(&viewer->keyboard, release_key, viewer);
}

void viewer_action(struct viewer *viewer, enum display_action action)
{
    struct display_message message = { .kind = DISPLAY_ACTION, .a = action };
    connection_send(viewer->connection, &message);
}

void viewer_say(struct viewer *viewer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_free(viewer->message);
    viewer->message = g_strdup_vprintf(format, args);
    va_end(args);
    viewer->message_end = g_get_monotonic_time() + MESSAGE_US;
    viewer->dirty = true;
}

void viewer_grab(struct viewer *viewer, bool grab)
{
    if (viewer->mouse.grabbed == grab)
        return;
    if (!mouse_grab(&viewer->mouse, viewer->window.window, grab))
        viewer_say(viewer, "The mouse cannot be grabbed: %s", SDL_GetError());
    mouse_flush(&viewer->mouse, viewer->connection);
    viewer->dirty = true;
}

void viewer_take_input(struct viewer *viewer)
{
    release_keys(viewer);
    viewer_grab(viewer, false);
}

void viewer_leave(struct viewer *viewer, int status)
{
    if (!viewer->leaving)
        viewer->status = status;
    viewer->leaving = true;
}

static void leave_over(struct viewer *viewer)
{
    bool crashed = viewer->update.model.state == STATE_CRASHED;
    if (crashed)
        viewer_action(viewer, ACTION_POWER_OFF);
    viewer_leave(viewer, crashed ? HV_CRASHED : HV_FAILED);
}

void viewer_show_dialog(struct viewer *viewer, enum dialog_kind kind)
{
    if (kind == DIALOG_CLOSE && viewer_is_over(viewer)) {
        leave_over(viewer);
        return;
    }
    viewer_take_input(viewer);
    panel_open_menu(viewer, MENU_NONE);
    viewer->help = false;
    viewer->dialog = (struct dialog){ .kind = kind };
}

/* --- news of the machine ---------------------------------------------------------------------- */

static void show_title(struct viewer *viewer)
{
    g_autofree char *hint =
        g_strdup_printf(" - %s frees the mouse", keyboard_host_name(&viewer->keyboard));
    g_autofree char *title = g_strdup_printf("%s (%s)%s", viewer->name, panel_state_word(viewer),
                                             viewer->mouse.grabbed ? hint : "");
    if (g_strcmp0(title, viewer->title) == 0)
        return;
    SDL_SetWindowTitle(viewer->window.window, title);
    g_free(viewer->title);
    viewer->title = g_steal_pointer(&title);
}

/* On the connection's thread. */
static void wake(void *data)
{
    const uint32_t *type = data;
    SDL_Event event = { .type = *type };
    SDL_PushEvent(&event);
}

static void take_name(struct viewer *viewer)
{
    if (viewer->name[0] || !viewer->update.model.name[0])
        return;
    g_free(viewer->name);
    viewer->name = g_strdup(viewer->update.model.name);
}

static void take_state(struct viewer *viewer, const struct model *before)
{
    const struct model *now = &viewer->update.model;
    if (now->disk != viewer->disk_seen) {
        viewer->dirty |= !viewer->disk_end;
        viewer->disk_end = g_get_monotonic_time() + DISK_LAMP_US;
        viewer->disk_seen = now->disk;
    }
    viewer->dirty |= now->state != before->state || now->lamps != before->lamps ||
                     now->pasting != before->pasting || now->greeted != before->greeted ||
                     strcmp(now->reason, before->reason) != 0;
    if (now->state == STATE_OFF)
        viewer_leave(viewer, HV_OK);
    if (viewer_is_over(viewer))
        viewer_grab(viewer, false);
}

static void take_picture(struct viewer *viewer)
{
    const struct model *model = &viewer->update.model;
    if (!viewer->update.pixels || !model->width)
        return;
    if (model->changed_mode)
        window_mode(&viewer->window, model->width, model->height);
    if (model->changed_mode || model->damage.width) {
        window_upload(&viewer->window, viewer->update.pixels, model->damage);
        viewer->dirty = true;
    }
}

static void take_news(struct viewer *viewer)
{
    struct update before = viewer->update;
    connection_take(viewer->connection, &viewer->update);
    viewer->dirty |= before.gone != viewer->update.gone;
    if (viewer->update.gone && !before.gone && viewer->update.complaint)
        log_warn(viewer->name, "%s", viewer->update.complaint);
    if (viewer->update.signalled)
        viewer_leave(viewer, HV_OK);
    take_name(viewer);
    take_state(viewer, &before.model);
    take_picture(viewer);
}

/* --- events ------------------------------------------------------------------------------------
 */

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

static void motion_event(struct viewer *viewer, const SDL_MouseMotionEvent *motion)
{
    int x = to_pixels(viewer, motion->x), y = to_pixels(viewer, motion->y);
    if (viewer->mouse.grabbed)
        mouse_move(&viewer->mouse, motion->xrel, motion->yrel, 0);
    else if (viewer->dialog.kind != DIALOG_NONE)
        dialog_motion(viewer, x, y);
    else
        panel_motion(viewer, x, y);
}

static void button_event(struct viewer *viewer, const SDL_MouseButtonEvent *button)
{
    bool down = button->type == SDL_MOUSEBUTTONDOWN;
    int x = to_pixels(viewer, button->x), y = to_pixels(viewer, button->y);
    if (viewer->mouse.grabbed) {
        mouse_button(&viewer->mouse, button->button, down, viewer->connection);
    } else if (!down) {
        return;
    } else if (viewer->dialog.kind != DIALOG_NONE) {
        dialog_click(viewer, x, y);
    } else if (viewer->help) {
        viewer->help = false;
        viewer->dirty = true;
    } else if (!panel_click(viewer, x, y) && !viewer_is_over(viewer)) {
        viewer_grab(viewer, true);
    }
}

static void wheel_event(struct viewer *viewer, const SDL_MouseWheelEvent *wheel)
{
    int by = wheel->direction == SDL_MOUSEWHEEL_FLIPPED ? -wheel->y : wheel->y;
    if (viewer->mouse.grabbed && by)
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
        take_news(viewer);
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
        viewer_leave(viewer, HV_HOST);
        break;
    default:
        break;
    }
}

int viewer_patience(const struct viewer *viewer)
{
    int64_t end = viewer->disk_end;
    if (viewer->message_end && (!end || viewer->message_end < end))
        end = viewer->message_end;
    if (!end)
        return -1;
    int64_t ms = (end - g_get_monotonic_time()) / 1000 + 1;
    return (int)CLAMP(ms, 1, 60 * 1000);
}

void viewer_settle(struct viewer *viewer)
{
    int64_t now = g_get_monotonic_time();
    mouse_flush(&viewer->mouse, viewer->connection);
    if (viewer->disk_end && now >= viewer->disk_end) {
        viewer->disk_end = 0;
        viewer->dirty = true;
    }
    if (viewer->message_end && now >= viewer->message_end) {
        g_clear_pointer(&viewer->message, g_free);
        viewer->message_end = 0;
        viewer->dirty = true;
    }
    if (!viewer->dirty || viewer->leaving)
        return;
    viewer->dirty = false;
    show_title(viewer);
    window_draw_picture(&viewer->window);
    panel_draw_state(viewer);
    help_draw(viewer);
    dialog_draw(viewer);
    panel_draw(viewer);
    SDL_RenderPresent(viewer->window.renderer);
}

/* --- start and end -----------------------------------------------------------------------------
 */

bool viewer_start(struct viewer *viewer, int socket, GError **error)
{
    viewer->panel = (struct panel){ .open = MENU_NONE, .hover = MENU_NONE, .item = -1 };
    viewer->event_type = SDL_RegisterEvents(1);
    viewer->dirty = true;
    if (!window_open(&viewer->window, viewer->name, error))
        return false;
    viewer->draw = draw_new(viewer->window.renderer);
    draw_set_density(viewer->draw, viewer->window.density);
    SDL_StopTextInput(); /* keys, not characters: no input method in between */
    viewer_settle(viewer);
    viewer->connection = connection_new(socket, wake, &viewer->event_type, error);
    return viewer->connection != NULL;
}

void viewer_finish(struct viewer *viewer)
{
    if (viewer->connection) {
        release_keys(viewer);
        viewer->mouse.pending |= viewer->mouse.buttons != 0;
        viewer->mouse.buttons = 0;
        mouse_flush(&viewer->mouse, viewer->connection);
    }
    connection_free(viewer->connection);
    draw_free(viewer->draw);
    window_close(&viewer->window);
    g_free(viewer->message);
    g_free(viewer->title);
}
