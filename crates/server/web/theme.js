// Sets light or dark before anything is drawn, so this is no module: those run too late.
(() => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem('mainstem-theme');
    } catch {
      // Without a store the system decides.
    }
    const theme = chosen === 'light' || chosen === 'dark' ? chosen : dark.matches ? 'dark' : 'light';
    document.documentElement.dataset.theme = theme;
    document.querySelector('meta[name="theme-color"]').content = theme === 'dark' ? '#161d25' : '#ffffff';
  };
  dark.addEventListener('change', apply);
  addEventListener('storage', apply);
  globalThis.mainstemApplyTheme = apply;
  apply();
})();
