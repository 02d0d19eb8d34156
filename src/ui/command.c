/* The commands; see command.h. */
#include "ui/command.h"

#include "ui/paste.h"
#include "ui/screenshot.h"
#include "ui/viewer.h"

static bool is_paused(const struct viewer *viewer)
{
    return viewer->update.model.state == STATE_PAUSED ||
           viewer->update.model.state == STATE_DISK_FULL;
}

static bool is_full_screen(const struct viewer *viewer)
{
    return viewer->window.full_screen;
}

static bool is_grabbed(const struct viewer *viewer)
{
    return viewer->mouse.grabbed;
}

static bool is_fitted(const struct viewer *viewer)
{
    return viewer->window.scaling == SCALING_FIT;
}

static bool is_integer(const struct viewer *viewer)
{
    return viewer->window.scaling == SCALING_INTEGER;
}

static bool is_one_to_one(const struct viewer *viewer)
{
    return viewer->window.scaling == SCALING_ONE_TO_ONE;
}

static void run_pause(struct viewer *viewer, const struct command *command)
{
    (void)command;
    viewer_action(viewer, is_paused(viewer) ? ACTION_RESUME : ACTION_PAUSE);
}

static void run_action(struct viewer *viewer, const struct command *command)
{
    viewer_action(viewer, (enum display_action)command->value);
    viewer_say(viewer, command->value == ACTION_EJECT ? "The CD's eject button was pressed"
                                                      : "The power button was pressed");
}

static void run_dialog(struct viewer *viewer, const struct command *command)
{
    viewer_show_dialog(viewer, (enum dialog_kind)command->value);
}

static void run_keys(struct viewer *viewer, const struct command *command)
{
    unsigned count = 0;
    for (; count < G_N_ELEMENTS(command->keys) && command->keys[count]; count++)
        viewer_key(viewer, command->keys[count], true);
    while (count--)
        viewer_key(viewer, command->keys[count], false);
}

static void run_host_key(struct viewer *viewer, const struct command *command)
{
    (void)command;
    viewer_key(viewer, viewer->keyboard.host_key, true);
    viewer_key(viewer, viewer->keyboard.host_key, false);
}

static void run_paste(struct viewer *viewer, const struct command *command)
{
    (void)command;
    paste_clipboard(viewer);
}

static void run_full_screen(struct viewer *viewer, const struct command *command)
{
    (void)command;
    window_set_full_screen(&viewer->window, !viewer->window.full_screen);
}

static void run_scaling(struct viewer *viewer, const struct command *command)
{
    enum scaling scaling = (enum scaling)command->value;
    if (viewer->window.scaling == scaling) /* its shortcut again: back */
        scaling = SCALING_FIT;
    window_set_scaling(&viewer->window, scaling);
}

static void run_grab(struct viewer *viewer, const struct command *command)
{
    (void)command;
    viewer_grab(viewer, !viewer->mouse.grabbed);
}

static void run_help(struct viewer *viewer, const struct command *command)
{
    (void)command;
    viewer->help = !viewer->help;
    viewer_take_input(viewer);
}

static void run_menu(struct viewer *viewer, const struct command *command)
{
    (void)command;
    panel_open_menu(viewer, MENU_MACHINE);
}

static void run_screenshot(struct viewer *viewer, const struct command *command)
{
    (void)command;
    screenshot_take(viewer);
}

#define COMBO(label_, ...)                                                                         \
    {                                                                                              \
        .menu = MENU_KEYS, .label = label_, .run = run_keys, .keys = { __VA_ARGS__ }               \
    }

const char *const menu_names[MENUS] = { "Machine", "Keys", "View" };

const struct command commands[] = {
    { MENU_MACHINE, "Pause", KEY_P, "P", "Resume", is_paused, run_pause },
    { MENU_MACHINE, "Reset...", KEY_R, "R", .run = run_dialog, .value = DIALOG_RESET },
    { MENU_MACHINE, "Shut down (power button)", KEY_O, "O", .run = run_action,
      .value = ACTION_SHUT_DOWN },
    { MENU_MACHINE, "Power off...", .run = run_dialog, .value = DIALOG_POWER_OFF },
    { MENU_MACHINE, "Eject CD", KEY_E, "E", .run = run_action, .value = ACTION_EJECT },
    { MENU_MACHINE, "Screenshot", KEY_S, "S", .run = run_screenshot },
    { MENU_MACHINE, "Close window...", KEY_Q, "Q", .run = run_dialog, .value = DIALOG_CLOSE },

    { MENU_KEYS, "Ctrl+Alt+Del", KEY_C, "C", .run = run_keys,
      .keys = { KEY_LEFT_CTRL, KEY_LEFT_ALT, KEY_DELETE } },
    { MENU_KEYS, "Paste clipboard as typed keys", KEY_V, "V", .run = run_paste },
    COMBO("Alt+Tab", KEY_LEFT_ALT, KEY_TAB),
    COMBO("Alt+F4", KEY_LEFT_ALT, KEY_F4),
    COMBO("Ctrl+Alt+Backspace", KEY_LEFT_CTRL, KEY_LEFT_ALT, KEY_BACKSPACE),
    COMBO("Ctrl+Alt+F1", KEY_LEFT_CTRL, KEY_LEFT_ALT, KEY_F1),
    COMBO("Ctrl+Alt+F2", KEY_LEFT_CTRL, KEY_LEFT_ALT, KEY_F2),
    COMBO("Ctrl+Alt+F3", KEY_LEFT_CTRL, KEY_LEFT_ALT, KEY_F3),
    COMBO("Ctrl+Alt+F4", KEY_LEFT_CTRL, KEY_LEFT_ALT, KEY_F4),
    COMBO("Ctrl+Alt+F5", KEY_LEFT_CTRL, KEY_LEFT_ALT, KEY_F5),
    COMBO("Ctrl+Alt+F6", KEY_LEFT_CTRL, KEY_LEFT_ALT, KEY_F6),
    COMBO("Ctrl+Alt+F7", KEY_LEFT_CTRL, KEY_LEFT_ALT, KEY_F7),
    COMBO("Print Screen", KEY_PRINT),
    COMBO("Pause", KEY_PAUSE),
    COMBO("SysRq S (sync disks)", KEY_LEFT_ALT, KEY_PRINT, KEY_S),
    COMBO("SysRq U (disks read-only)", KEY_LEFT_ALT, KEY_PRINT, KEY_U),
    COMBO("SysRq B (reboot)", KEY_LEFT_ALT, KEY_PRINT, KEY_B),
    { MENU_KEYS, "The host key itself", KEY_K, "K", .run = run_host_key },

    { MENU_VIEW, "Full screen", KEY_F, "F", NULL, is_full_screen, run_full_screen },
    { MENU_VIEW, "Fit to the window", 0, NULL, NULL, is_fitted, run_scaling, SCALING_FIT },
    { MENU_VIEW, "Whole-number scaling", KEY_I, "I", NULL, is_integer, run_scaling,
      SCALING_INTEGER },
    { MENU_VIEW, "Actual size (1:1)", KEY_1, "1", NULL, is_one_to_one, run_scaling,
      SCALING_ONE_TO_ONE },
    { MENU_VIEW, "Grab mouse and keyboard", KEY_G, "G", "Release mouse and keyboard", is_grabbed,
      run_grab },
    { MENU_VIEW, "Help", KEY_H, "H", .run = run_help },

    { MENU_NONE, "Open the menus (arrow keys)", KEY_M, "M", .run = run_menu },
};
const unsigned command_count = G_N_ELEMENTS(commands);

const struct command *command_of_letter(uint8_t letter)
{
    for (unsigned i = 0; i < command_count; i++) {
        if (commands[i].letter == letter)
            return &commands[i];
    }
    return NULL;
}

const char *command_label(const struct command *command, const struct viewer *viewer)
{
    bool on = command->is_on_label && command->is_on(viewer);
    return on ? command->is_on_label : command->label;
}
