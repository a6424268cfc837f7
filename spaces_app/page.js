// Gradio leaves these pictures without a name; a screen reader needs one.
() => {
  const name = () => {
    document.querySelectorAll(".examples .gallery-item:not([aria-label])").forEach((button) => {
      const file = decodeURIComponent(button.querySelector("img")?.src ?? "").split("/").pop();
      const words = file.replace(/\.png$/, "").replaceAll("-", " ");
      if (words) button.setAttribute("aria-label", `Example: ${words}`);
    });
    document.querySelectorAll("#comparison .content").forEach((content) => {
      const names = ["The portrait", "The recovered face"];
      content.querySelectorAll("img").forEach((picture, index) => {
        if (!picture.alt) picture.alt = names[index];
      });
    });
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}
