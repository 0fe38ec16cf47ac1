// The switch between light, dark and what the system has. `theme.js` beside the page applies the choice before the first drawing.

const KEY = 'mainstem-theme';
const NEXT = { system: 'light', light: 'dark', dark: 'system' };

export function choice() {
  try {
    return localStorage.getItem(KEY) || 'system';
  } catch {
    return 'system';
  }
}

export function switchTheme() {
  const next = NEXT[choice()];
  try {
    if (next === 'system') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, next);
  } catch {
    return;
  }
  globalThis.mainstemApplyTheme();
}
